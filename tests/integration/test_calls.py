"""Calls from node to node, over real links: answers, refusals, and answers that never come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from container_manager.cluster.calls import ANSWER, CALL, MOST, Calls, Refused, Unanswered
from container_manager.cluster.frames import MAX_FRAME, FrameError
from container_manager.errors import JobNotFound, NodeUnreachable
from tests.support.links import LinkNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from container_manager.cluster.link import Link

LIMIT = 10.0
CANARY = "canary-c0ffee-canary"
Method = Callable[[dict[str, Any]], Awaitable[Any]]


@dataclass
class Side:
    """One end of a link, and the calls over it."""

    link: Link
    calls: Calls
    reading: asyncio.Task[None]

    async def call(self, method: str, timeout: float = LIMIT, **params: Any) -> Any:
        async with asyncio.timeout(LIMIT):
            return await self.calls.call(self.link, method, params, timeout)


def side(link: Link, methods: dict[str, Method]) -> Side:
    calls = Calls(methods)

    async def read() -> None:
        async for kind, content in link.frames():
            calls.received(link, kind, content)

    return Side(link, calls, asyncio.create_task(read()))


@asynccontextmanager
async def linked(**methods: Method) -> AsyncIterator[tuple[Side, Side]]:
    """The caller's side, and the one that has these methods."""
    async with asyncio.timeout(LIMIT), LinkNode("b").listening() as b:
        a = LinkNode("a")
        caller = side(await a.dial(b), {})
        other = side(await b.links.get(), methods)
        try:
            yield caller, other
        finally:
            await a.close()
            await b.close()
            await asyncio.gather(caller.reading, other.reading, return_exceptions=True)
    for one in (caller, other):
        assert one.calls._waiting == {}


async def echo(params: dict[str, Any]) -> Any:
    return params


async def test_each_call_gets_its_own_answer() -> None:
    async with linked(echo=echo) as (caller, _):
        answers = await asyncio.gather(*(caller.call("echo", number=n) for n in range(50)))
    assert answers == [{"number": n} for n in range(50)]


async def test_both_sides_can_ask_at_once() -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def meet(_: dict[str, Any]) -> Any:
        first.set()
        await second.wait()

    async def reply(_: dict[str, Any]) -> Any:
        await first.wait()
        second.set()

    async with linked(meet=meet) as (caller, other):
        caller.calls._methods["reply"] = reply
        await asyncio.gather(caller.call("meet"), other.call("reply"))


async def test_a_refusal_comes_with_the_other_nodes_code_and_words() -> None:
    async def absent(_: dict[str, Any]) -> Any:
        raise JobNotFound

    async def gone(_: dict[str, Any]) -> Any:
        raise NodeUnreachable("c0ffee", status="running")

    async with linked(absent=absent, gone=gone) as (caller, _):
        with pytest.raises(Refused) as refused:
            await caller.call("absent")
        told = JobNotFound()
        assert (refused.value.code, refused.value.message) == (told.code, told.message)
        assert refused.value.data == {"name": "job_not_found"}
        with pytest.raises(Refused) as refused:
            await caller.call("gone")
        assert refused.value.code == NodeUnreachable.code
        known = {"node": "c0ffee", "status": "running"}
        assert refused.value.data == {"name": "node_unreachable", **known}


async def test_a_method_that_is_not_known_is_refused() -> None:
    async with linked() as (caller, _):
        with pytest.raises(Refused) as refused:
            await caller.call("of a later version")
    assert refused.value.code == -32601


async def test_a_method_that_breaks_tells_nothing_of_how() -> None:
    async def broken(_: dict[str, Any]) -> Any:
        raise RuntimeError(CANARY)

    async with linked(broken=broken, echo=echo) as (caller, _):
        with pytest.raises(Refused) as refused:
            await caller.call("broken")
        assert refused.value.code == -32603
        assert CANARY not in f"{refused.value.message}{refused.value.data}"
        assert await caller.call("echo") == {}


@pytest.mark.parametrize("answer", [b"x" * MAX_FRAME, {1: 2}, object()])
async def test_an_answer_that_cannot_be_sent_is_a_refusal_and_not_silence(answer: Any) -> None:
    async def answering(_: dict[str, Any]) -> Any:
        return answer

    async with linked(answering=answering, echo=echo) as (caller, _):
        with pytest.raises(Refused) as refused:
            await caller.call("answering")
        assert refused.value.code == -32603
        assert await caller.call("echo") == {}


async def test_params_that_cannot_be_sent_are_the_callers_fault() -> None:
    async with linked(echo=echo) as (caller, _):
        with pytest.raises(FrameError):
            await caller.call("echo", large=b"x" * MAX_FRAME)
        assert await caller.call("echo") == {}


async def test_what_takes_too_long_is_unanswered_and_a_late_answer_disturbs_nobody() -> None:
    go_on, gone_on = asyncio.Event(), asyncio.Event()

    async def slow(_: dict[str, Any]) -> Any:
        await go_on.wait()
        gone_on.set()
        return "too late"

    async with linked(slow=slow, echo=echo) as (caller, _):
        with pytest.raises(Unanswered):
            await caller.call("slow", timeout=0.01)
        go_on.set()
        await gone_on.wait()
        assert await caller.call("echo", n=1) == {"n": 1}


@pytest.mark.parametrize("ours", [True, False])
async def test_when_the_link_ends_nobody_waits_for_an_answer(ours: bool) -> None:
    under_way, never = asyncio.Event(), asyncio.Event()

    async def slow(_: dict[str, Any]) -> Any:
        under_way.set()
        await never.wait()

    async with linked(slow=slow) as (caller, other):
        calling = asyncio.create_task(caller.call("slow"))
        await under_way.wait()
        await (caller if ours else other).link.close()
        with pytest.raises(Unanswered):
            await calling
        with pytest.raises(Unanswered):
            await caller.call("slow")
        never.set()


async def test_a_caller_who_gives_up_leaves_nothing_behind() -> None:
    under_way, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: dict[str, Any]) -> Any:
        under_way.set()
        await go_on.wait()
        raise JobNotFound

    async with linked(slow=slow, echo=echo) as (caller, _):
        calling = asyncio.create_task(caller.call("slow"))
        await under_way.wait()
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        assert caller.calls._waiting == {}
        go_on.set()
        assert await caller.call("echo") == {}


async def test_no_more_is_carried_out_at_a_time_than_there_may_be() -> None:
    running, all_run, go_on = 0, asyncio.Event(), asyncio.Event()

    async def slow(_: dict[str, Any]) -> Any:
        nonlocal running
        running += 1
        if running == MOST:
            all_run.set()
        await go_on.wait()

    async with linked(slow=slow, echo=echo) as (caller, other):
        calling = [asyncio.create_task(caller.call("slow")) for _ in range(MOST)]
        await all_run.wait()
        with pytest.raises(Unanswered):
            await caller.call("echo", timeout=0.05)
        assert running == MOST
        go_on.set()
        await asyncio.gather(*calling)
        assert await caller.call("echo") == {}
    assert other.calls._under_way == {}


@pytest.mark.parametrize("kind", [CALL, ANSWER])
@pytest.mark.parametrize(
    "content",
    [None, 1, "ab", b"abc", [], [1], [1, "echo"], {"a": 1}, [None, "echo", {}], ["1", "echo", {}]],
)
async def test_malformed_frames_are_refused(kind: int, content: Any) -> None:
    async with linked(echo=echo) as (caller, _):
        with pytest.raises(FrameError, match=f"kind {kind}"):
            caller.calls.received(caller.link, kind, content)


@pytest.mark.parametrize(
    "refusal", [1, "no", [], [1, "no"], ["1", "no", {}], [1, "no", 5], [1, "no", []]]
)
async def test_a_malformed_refusal_is_refused(refusal: Any) -> None:
    never = asyncio.Event()

    async def slow(_: dict[str, Any]) -> Any:
        await never.wait()

    async with linked(slow=slow) as (caller, _):
        calling = asyncio.create_task(caller.call("slow"))
        await asyncio.sleep(0)
        ((_, number),) = caller.calls._waiting
        with pytest.raises(FrameError):
            caller.calls.received(caller.link, ANSWER, [number, None, refusal])
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        never.set()


async def test_what_later_versions_add_and_other_kinds_are_ignored() -> None:
    done = asyncio.Event()

    async def mark(_: dict[str, Any]) -> Any:
        done.set()

    async with linked(mark=mark) as (caller, other):
        other.calls.received(other.link, CALL, [1, "mark", {}, "of a later version"])
        await done.wait()
        caller.calls.received(caller.link, ANSWER, [999, None, None, "of a later version"])
        caller.calls.received(caller.link, 99, None)
