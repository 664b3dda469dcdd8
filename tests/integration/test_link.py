"""Links on real sockets: who gets one, what goes over it, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import ssl
import time
import warnings
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from container_manager.cluster import listener as listener_module
from container_manager.cluster.certificates import Identity
from container_manager.cluster.errors import (
    BROKEN_OFF,
    BUSY,
    FRAME,
    ITSELF,
    POSED_ID,
    SECRET,
    SILENT,
    TLS,
    WIRE_VERSION,
    LinkClosed,
    LinkRefused,
    LinkUnreachable,
)
from container_manager.cluster.frames import MAX_FRAME, FrameError, encode
from container_manager.cluster.hello import HELLO, MAX_HELLO, WELCOME, Hello
from container_manager.cluster.link import connect
from container_manager.cluster.secret import ClusterSecret
from container_manager.cluster.wire import LINGER, MAX_UNREAD, MAX_UNSENT
from container_manager.node import new_key
from tests.support.links import OTHER_TEXT, TEXT, LinkNode
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from container_manager.cluster.link import Link

LIMIT = 10.0
KIND = 20
CANARY = "canary-c0ffee-canary"


@pytest.fixture(params=[asyncio.SelectorEventLoop, uvloop.Loop], ids=["asyncio", "uvloop"])
def event_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Each test runs on both event loops; set before the runner of the test makes its own."""
    monkeypatch.setattr(asyncio.DefaultEventLoopPolicy, "_loop_factory", request.param)
    return request.param


def sockets() -> int:
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    return found


@pytest.fixture(autouse=True)
async def nothing_is_left(event_loop: Any) -> AsyncIterator[None]:
    """No test leaves a task, a socket or a transport, or has the loop complain of anything."""
    broken: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    assert isinstance(loop, event_loop)
    loop.set_exception_handler(lambda _, context: broken.append(context))
    gc.collect()
    before = sockets()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield
        await eventually(lambda: sockets() <= before, timeout=5)
        gc.collect()
        await asyncio.sleep(0)
        await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()}, timeout=5)
    assert not broken
    assert not [str(one.message) for one in warned]


@asynccontextmanager
async def pair(**options: Any) -> AsyncIterator[tuple[Link, Link]]:
    """Both ends of a link: the one that has dialled, and the other."""
    here, there = LinkNode("here"), LinkNode("there")
    async with there.listening(**options):
        link = await here.dial(there, **options)
        try:
            yield link, await asyncio.wait_for(there.links.get(), LIMIT)
        finally:
            await here.close()


async def first(link: Link) -> tuple[int, Any]:
    async with asyncio.timeout(LIMIT):
        async for frame in link.frames():
            return frame
    raise AssertionError(f"the link ended: {link.reason}")


async def ended(link: Link, limit: float = LIMIT) -> str:
    await asyncio.wait_for(link.closed.wait(), limit)
    return link.reason


async def refused(node: LinkNode) -> LinkRefused:
    """Why the listening node has refused a call."""
    address, error = await asyncio.wait_for(node.refused.get(), LIMIT)
    assert re.fullmatch(r"127\.0\.0\.1:[0-9]+", address)
    assert node.listener is not None
    assert node.listener.refusals[error.kind] >= 1
    assert node.links.empty()
    return error


# Two nodes talk


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_two_nodes_talk(host: str) -> None:
    here = LinkNode("here", addresses=("127.0.0.1:4001",), vector={"feed": 7}, extra={"x": [1]})
    there = LinkNode("there")
    async with there.listening(host):
        link = await here.dial(there)
        other = await there.links.get()
        assert link.peer == there.hello()
        assert other.peer == here.hello()
        assert (link.version, link.dialled, link.address) == (1, True, there.address)
        assert (other.version, other.dialled) == (1, False)
        await link.send(KIND, {"to": "there", "bytes": b"\0"})
        await other.send(KIND, ["to", "here", None])
        assert await first(other) == (KIND, {"to": "there", "bytes": b"\0"})
        assert await first(link) == (KIND, ["to", "here", None])
        assert not link.closed.is_set()
        assert link.reason == ""
        await here.close()
        assert link.reason == "closed by this node"
        assert await ended(other) == "it closed the connection"
        assert not other.left


async def test_a_thousand_frames_each_way_arrive_in_order() -> None:
    async def talk(link: Link) -> list[Any]:
        async def say() -> None:
            for number in range(1000):
                await link.send(KIND, [number, "x" * (number * 7 % 1000)])

        saying, got = asyncio.create_task(say()), []
        async for _, content in link.frames():
            got.append(content[0])
            if len(got) == 1000:
                break
        await saying
        return got

    async with pair() as ends, asyncio.timeout(LIMIT):
        assert await asyncio.gather(*map(talk, ends)) == [list(range(1000))] * 2


async def test_the_largest_frame_goes_through_and_a_larger_one_is_the_senders_error() -> None:
    async with pair() as (link, other):
        content = b"x" * (MAX_FRAME - 6)  # the kind, and five bytes of MessagePack
        await link.send(KIND, content)
        assert await first(other) == (KIND, content)
        with pytest.raises(FrameError, match="larger than the limit"):
            await link.send(KIND, content + b"x")
        with pytest.raises(FrameError, match="cannot be written"):
            await link.send(KIND, object())
        for kind in (0, 15, 256):
            with pytest.raises(ValueError, match="kind"):
                await link.send(kind, None)
        await link.send(KIND, "still well")
        assert await first(other) == (KIND, "still well")


async def test_kinds_that_nobody_knows_are_handed_on_and_the_links_own_are_not() -> None:
    async with pair() as (link, other):
        link._wire.put(encode(15, "of a later link"))
        link._wire.put(encode(HELLO, "again"))
        await link.send(255, "of a later user")
        assert await first(other) == (255, "of a later user")


async def test_nothing_goes_over_the_wire_in_the_clear() -> None:
    here, there = LinkNode("here", extra={"hidden": CANARY}), LinkNode("there")
    async with there.listening(), TcpProxy(there.address) as proxy:
        link = await here.dial(proxy.address)
        other = await there.links.get()
        assert other.peer.extra == {"hidden": CANARY}
        for one in (link, other):
            await one.send(KIND, {"env": CANARY})
        assert await first(link) == await first(other) == (KIND, {"env": CANARY})
        hidden = (CANARY, TEXT, here.identity.node, there.identity.node, "here", "container-m")
        for bytes_ in proxy.seen.values():
            assert len(bytes_) > 500
            assert not [text for text in hidden if text.encode() in bytes_]
        await here.close()


# Who gets no link


async def test_another_secret_is_refused_on_both_sides() -> None:
    outsider = LinkNode("outsider", secret=OTHER_TEXT)
    async with LinkNode().listening() as node:
        with pytest.raises(LinkRefused, match="it has another cluster secret") as error:
            await outsider.dial(node)
        assert error.value.kind == SECRET
        seen = await refused(node)
        assert seen.kind == SECRET
        assert "the cluster secrets differ" in str(seen)


async def test_a_posed_id_is_refused_on_both_sides() -> None:
    node = LinkNode()
    async with node.listening():
        posed = Identity.claiming(node.identity.node, new_key(), ClusterSecret(TEXT))
        with pytest.raises(LinkRefused, match="poses as another node") as error:
            await LinkNode(identity=posed).dial(node)
        assert error.value.kind == POSED_ID
        assert (await refused(node)).kind == POSED_ID
    # The same of one that is dialled.
    posed = Identity.claiming("f" * 32, new_key(), ClusterSecret(TEXT))
    async with LinkNode(identity=posed).listening() as liar:
        with pytest.raises(LinkRefused, match="poses as another node") as error:
            await LinkNode().dial(liar)
        assert error.value.kind == POSED_ID
        assert (await refused(liar)).kind == POSED_ID


async def test_a_hello_with_another_id_than_the_certificates_is_refused() -> None:
    async with LinkNode().listening() as node:
        with pytest.raises(LinkRefused, match="it poses as node") as error:
            await LinkNode(node="e" * 32).dial(node)
        assert error.value.kind == POSED_ID
        assert (await refused(node)).kind == POSED_ID


@pytest.mark.parametrize(
    ("mine", "theirs", "here", "there"),
    [
        (
            (3, 4),
            (1, 2),
            "it speaks wire versions 1 to 2, this node wire versions 3 to 4: upgrade it",
            "it speaks wire versions 3 to 4, this node wire versions 1 to 2: upgrade this node",
        ),
        (
            (1, 1),
            (2, 3),
            "it speaks wire versions 2 to 3, this node wire version 1: upgrade this node",
            "it speaks wire version 1, this node wire versions 2 to 3: upgrade it",
        ),
    ],
)
async def test_a_wire_version_too_far_away_is_refused_in_words_for_each_side(
    mine: tuple[int, int], theirs: tuple[int, int], here: str, there: str
) -> None:
    async with LinkNode(wire=theirs).listening() as node:
        with pytest.raises(LinkRefused) as error:
            await LinkNode(wire=mine).dial(node)
        assert (error.value.kind, str(error.value)) == (WIRE_VERSION, here)
        seen = await refused(node)
        assert (seen.kind, str(seen)) == (WIRE_VERSION, there)


async def test_neighbouring_versions_speak_the_highest_that_both_know() -> None:
    async with LinkNode(wire=(1, 2)).listening() as node:
        for wire, spoken in (((2, 3), 2), ((1, 1), 1), ((1, 9), 2)):
            dialler = LinkNode(wire=wire)
            link = await dialler.dial(node)
            assert link.version == (await node.links.get()).version == spoken
            await dialler.close()


async def test_a_node_does_not_link_to_itself() -> None:
    async with LinkNode().listening() as node:
        with pytest.raises(LinkRefused, match="very daemon") as error:
            await node.dial(node)
        assert error.value.kind == ITSELF
        assert (await refused(node)).kind == ITSELF


@pytest.mark.parametrize("dialled", [False, True])
async def test_either_side_may_refuse_the_other_by_its_hello(dialled: bool) -> None:
    def admit(hello: Hello) -> None:
        raise LinkRefused(f"{hello.name} lives twice", "twice")

    here, there = LinkNode("here"), LinkNode("there")
    async with there.listening(**({} if dialled else {"admit": admit})):
        with pytest.raises(LinkRefused, match="lives twice") as error:
            await here.dial(there, **({"admit": admit} if dialled else {}))
        assert error.value.kind == "twice"
        seen = await refused(there)
        assert seen.kind == "twice"
        assert "lives twice" in str(seen)


# Strangers at the port


async def talk_plainly(node: LinkNode, data: bytes) -> bytes:
    """What a plain TCP client gets until the node closes."""
    host, _, port = node.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), LIMIT)
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", TLS),
        (b"\xff" * 100_000, TLS),
        (bytes(64), TLS),
        (b"SSH-2.0-OpenSSH_9.2\r\n", TLS),
    ],
)
async def test_plain_garbage_is_refused(data: bytes, kind: str) -> None:
    async with LinkNode().listening() as node:
        await talk_plainly(node, data)
        assert (await refused(node)).kind == kind
        assert await LinkNode().dial(node)  # it stays well


@pytest.mark.parametrize(
    ("old", "kind", "words"), [(False, SECRET, "no certificate"), (True, TLS, "TLS 1.3")]
)
async def test_tls_that_is_old_or_has_no_certificate_is_refused(
    old: bool, kind: str, words: str
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if old:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with LinkNode().listening() as node:
        host, _, port = node.address.rpartition(":")
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
            try:
                await asyncio.wait_for(reader.read(), LIMIT)
            finally:
                writer.transport.abort()
        seen = await refused(node)
        assert seen.kind == kind
        assert words in str(seen)


async def test_who_connects_and_goes_is_counted() -> None:
    async with LinkNode().listening() as node:
        host, _, port = node.address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.transport.abort()
        assert (await refused(node)).kind == BROKEN_OFF


async def test_who_connects_and_says_nothing_is_cut() -> None:
    async with LinkNode().listening(handshake=0.2) as node:
        began = time.monotonic()
        await talk_plainly(node, b"")
        assert (await refused(node)).kind == SILENT
        assert time.monotonic() - began < 2 * LINGER


@asynccontextmanager
async def strange(node: LinkNode) -> AsyncIterator[tuple[Any, Any]]:
    """A member by its certificate, which then says what the test has it say."""
    host, _, port = node.address.rpartition(":")
    context = LinkNode().identity.client
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_who_says_nothing_after_tls_is_told_so_and_cut() -> None:
    async with LinkNode().listening(handshake=0.2) as node, strange(node) as (reader, _):
        said = await asyncio.wait_for(reader.read(), LIMIT)
        assert b"not done within 0.2 s" in said
        assert (await refused(node)).kind == SILENT


def hello_with(**fields: Any) -> bytes:
    return encode(HELLO, LinkNode().hello().to_content() | fields)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (encode(KIND, {}), "kind 20 where 1 is due"),
        (encode(WELCOME, {}), "kind 2 where 1 is due"),
        (encode(HELLO, []), "it is no map"),
        (encode(HELLO, {}), "wire"),
        (b"\xff\xff\xff\xff\x01", "larger than the limit"),
        ((MAX_HELLO + 1).to_bytes(4, "big"), f"larger than the limit of {MAX_HELLO}"),
        (bytes(4), "no kind"),
        (b"\0\0\0\2\1\xc1", "MessagePack"),
        (hello_with(wire="1"), "wire"),
        (hello_with(wire=[1]), "wire"),
        (hello_with(wire=[1, -1]), "wire"),
        (hello_with(node=None), "node"),
        (hello_with(node="x" * 32), "node"),
        (hello_with(run="0"), "run"),
        (hello_with(name="a\nb"), "name"),
        (hello_with(name="a" * 256), "name"),
        (hello_with(version=1), "version"),
        (hello_with(addresses="a"), "addresses"),
        (hello_with(addresses=[1]), "addresses"),
        (hello_with(addresses=["a"] * 65), "addresses"),
        (hello_with(vector=[]), "vector"),
        (hello_with(vector={"a": -1}), "vector"),
        (hello_with(vector={"a": 1.5}), "vector"),
        (hello_with(extra=[]), "extra"),
    ],
)
async def test_a_member_that_says_what_is_no_hello_is_refused(said: bytes, words: str) -> None:
    async with LinkNode().listening() as node, strange(node) as (reader, writer):
        writer.write(said)
        told = await asyncio.wait_for(reader.read(), LIMIT)
        seen = await refused(node)
        assert seen.kind == FRAME
        assert words in str(seen)
        assert words.encode() in told


async def test_fields_of_a_hello_that_are_not_known_are_ignored() -> None:
    async with LinkNode().listening() as node:
        host, _, port = node.address.rpartition(":")
        member = LinkNode()
        context = member.identity.client
        reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
        content = member.hello().to_content() | {"later": {"a": 1}}
        writer.write(encode(HELLO, content) + encode(WELCOME, {"later": 1}))
        link = await asyncio.wait_for(node.links.get(), LIMIT)
        assert link.peer == member.hello()
        writer.transport.abort()
        await ended(link)
        del reader


async def test_callers_that_only_take_places_keep_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener_module, "MAX_HANDSHAKES", 3)
    async with LinkNode().listening() as node:
        host, _, port = node.address.rpartition(":")
        idle = [(await asyncio.open_connection(host, int(port)))[1] for _ in range(3)]
        dialler = LinkNode()
        assert await dialler.dial(node)
        await node.links.get()
        assert (await refused(node)).kind == BUSY
        for writer in idle:
            writer.transport.abort()
        await dialler.close()


async def test_a_callback_that_breaks_leaves_the_listener_well() -> None:
    node = LinkNode()
    broken = True

    def admit(_: Hello) -> None:
        if broken:
            raise RuntimeError("a defect")

    async with node.listening(admit=admit):
        with pytest.raises(LinkRefused, match="broken off") as error:
            await LinkNode().dial(node)
        assert error.value.kind == BROKEN_OFF
        broken = False
        dialler = LinkNode()
        await dialler.dial(node)
        await dialler.close()


# Dialling


@pytest.mark.parametrize(
    "address", ["", "host", ":1", "host:", "host:0", "host:65536", "host:x", "[::1]"]
)
async def test_what_is_no_address_is_not_dialled(address: str) -> None:
    with pytest.raises(LinkUnreachable, match="is no address; write host:port"):
        await LinkNode().dial(address)


async def test_where_nobody_listens_nobody_is_reached() -> None:
    async with LinkNode().listening() as node:
        address = node.address
    with pytest.raises(LinkUnreachable, match=f"no connection to {address}"):
        await LinkNode().dial(address)


@asynccontextmanager
async def mute() -> AsyncIterator[str]:
    """The address of somebody who listens and says nothing."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(listen, "::1") as server:
        yield f"[::1]:{server.sockets[0].getsockname()[1]}"


async def test_who_answers_nothing_is_given_up() -> None:
    async with mute() as address:
        with pytest.raises(LinkUnreachable, match=r"nothing was heard from .* within 0\.2 s"):
            await LinkNode().dial(address, handshake=0.2)


async def test_something_else_that_answers_is_refused() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(LinkRefused, match="does not speak TLS") as error:
            await LinkNode().dial(f"127.0.0.1:{port}")
        assert error.value.kind == TLS


@pytest.mark.parametrize("answers", [False, True])
async def test_dialling_can_be_cancelled_at_any_time(answers: bool) -> None:
    """Also in the middle of the handshake: the sockets go at once, whatever the other side does."""
    async with LinkNode().listening() as node, mute() as silent:
        before = sockets()
        for turns in range(40):
            dialler = LinkNode()
            task = asyncio.create_task(dialler.dial(node if answers else silent))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            await dialler.close()
        await eventually(lambda: sockets() <= before, timeout=2)


async def test_a_listener_that_closes_breaks_off_its_handshakes() -> None:
    async with LinkNode().listening() as node, TcpProxy(node.address) as proxy:
        proxy.stop("back")
        dialling = asyncio.create_task(LinkNode().dial(proxy.address))
        await eventually(lambda: proxy.seen["there"])
        assert node.listener is not None
        await asyncio.wait_for(node.listener.close(), LIMIT)
        assert not node.listener._greetings
        dialling.cancel()
        with suppress(asyncio.CancelledError):
            await dialling


# The end of a link


async def test_a_goodbye_is_seen_as_left() -> None:
    async with pair() as (link, other):
        await link.send(KIND, "the last")
        await link.close(left=True)
        assert await ended(other) == "it has left"
        assert other.left
        # What came before it is still there to be read.
        assert [frame async for frame in other.frames()] == [(KIND, "the last")]
        with pytest.raises(LinkClosed, match="it has left"):
            await other.send(KIND, None)
        with pytest.raises(LinkClosed, match="closed by this node"):
            await link.send(KIND, None)


async def test_a_goodbye_arrives_though_the_other_side_is_sending() -> None:
    async def flood(link: Link) -> None:
        with suppress(LinkClosed):
            while True:
                await link.send(KIND, b"x" * 10_000)

    async with pair() as (link, other):
        flooding = asyncio.create_task(flood(other))
        await first(link)
        await link.close(left=True)
        await asyncio.wait_for(flooding, LIMIT)
        assert other.left
        assert other.reason == "it has left"


async def test_what_was_sent_before_the_close_arrives() -> None:
    async with pair() as (link, other):
        content = b"x" * (MAX_FRAME - 100)  # more than the kernel takes at once
        await link.send(KIND, content)
        closing = asyncio.create_task(link.close(left=True))
        assert await first(other) == (KIND, content)
        await closing
        assert await ended(other) == "it has left"


async def test_closing_wakes_whoever_sends_and_whoever_reads() -> None:
    async with pair() as (link, _):
        sending = asyncio.create_task(fill(link))
        reading = asyncio.create_task(first(link))
        await eventually(lambda: link._wire._writers)
        await link.close()
        with pytest.raises(LinkClosed, match="closed by this node"):
            await asyncio.wait_for(sending, LIMIT)
        with pytest.raises(AssertionError, match="the link ended: closed by this node"):
            await asyncio.wait_for(reading, LIMIT)
        await link.close()  # twice does no harm


async def test_closing_waits_no_longer_than_it_lingers() -> None:
    async with pair() as (link, _):
        with suppress(TimeoutError):
            await asyncio.wait_for(fill(link), 0.2)
        began = time.monotonic()
        await link.close(left=True)
        assert time.monotonic() - began < 2 * LINGER


async def test_closing_can_be_cancelled() -> None:
    async with pair() as (link, _):
        with suppress(TimeoutError):
            await asyncio.wait_for(fill(link), 0.2)
        closing = asyncio.create_task(link.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await eventually(link._wire._gone.is_set)


async def test_a_cancelled_send_sends_nothing() -> None:
    async with pair() as (link, other):
        filling = asyncio.create_task(fill(link))
        await eventually(lambda: link._wire._writers)
        late = asyncio.create_task(link.send(KIND, "late"))
        await eventually(lambda: len(link._wire._writers) == 2)
        for task in (late, filling):
            task.cancel()
        await asyncio.gather(late, filling, return_exceptions=True)
        assert not link._wire._writers
        ending = asyncio.create_task(link.send(KIND, "end"))
        async with asyncio.timeout(LIMIT):
            async for _, content in other.frames():
                assert content != "late"
                if content == "end":
                    break
        await ending


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((MAX_FRAME + 1).to_bytes(4, "big"), "larger than the limit"),
        (b"GET / HTTP/1.1", "larger than the limit"),
        (bytes(4), "no kind"),
        (b"\0\0\0\2\x14\xc1", "MessagePack"),
    ],
)
async def test_what_is_no_frame_ends_the_link_and_both_sides_know_why(
    said: bytes, words: str
) -> None:
    async with pair() as (link, other):
        await link.send(KIND, "before")
        link._wire.put(said)
        assert words in await ended(other)
        assert words in await ended(link)
        assert "it refuses this node, in its own words" in link.reason
        assert await first(other) == (KIND, "before")


async def test_tampering_with_the_bytes_ends_the_link() -> None:
    async with pair() as (link, other):
        link._wire._transport.write(b"\x17\x03\x03\x00\x20" + bytes(32))  # type: ignore[union-attr]
        assert "TLS broke" in await ended(other)
        await ended(link)


async def test_a_peer_that_vanishes_is_noticed() -> None:
    async with pair() as (link, other):
        link._wire._transport.abort()  # type: ignore[union-attr]
        assert re.search("closed|lost", await ended(other))
        assert not other.left


# Liveness


@pytest.mark.parametrize(
    ("ways", "sides"),
    [(("there", "back"), "both"), (("there",), "listener"), (("back",), "dialler")],
)
async def test_half_open_connections_are_noticed(ways: Any, sides: str) -> None:
    """Whoever hears nothing closes; the others learn it by the closed connection, or alone."""
    times = {"silence": 0.5, "beat": 0.05}
    here, there = LinkNode("here"), LinkNode("there")
    async with there.listening(**times), TcpProxy(there.address) as proxy:
        link = await here.dial(proxy.address, **times)
        other = await there.links.get()
        proxy.stop(*ways)
        began = time.monotonic()
        reasons = {"dialler": await ended(link), "listener": await ended(other)}
        for side, reason in reasons.items():
            if sides in (side, "both"):
                assert reason == "it was silent for 0.5 s"
        assert time.monotonic() - began < 5
        await here.close()


async def test_an_idle_link_stays_and_knows_the_others_clock() -> None:
    async with pair(silence=0.5, beat=0.05) as (link, other):
        began = time.monotonic()
        await eventually(lambda: link.heard() > began + 1)
        assert not link.closed.is_set()
        assert not other.closed.is_set()
        for end in (link, other):
            assert end.clock_skew is not None
            assert abs(end.clock_skew) < 0.1


async def test_a_process_that_was_stopped_does_not_blame_the_other_side() -> None:
    async with pair(silence=0.5, beat=0.05) as (link, other):
        await eventually(lambda: link.clock_skew is not None)
        time.sleep(1.0)  # noqa: ASYNC251 - as SIGSTOP does, it stops both
        began = time.monotonic()
        await eventually(lambda: min(link.heard(), other.heard()) > began + 0.2)
        assert not link.closed.is_set()
        assert not other.closed.is_set()


async def test_a_reader_that_is_slow_is_not_taken_for_silence() -> None:
    async with pair(silence=0.5, beat=0.05) as (link, other):
        filling = asyncio.create_task(fill(link, 200))
        await eventually(lambda: other._wire.holding)
        await asyncio.sleep(1.0)
        assert not other.closed.is_set()
        assert not link.closed.is_set()
        async with asyncio.timeout(LIMIT):
            async for _, content in other.frames():
                if content == 199:
                    break
        await filling


# Bounds


async def fill(link: Link, count: int = 10_000) -> int:
    """Send so many times 50 kB, each followed by its number."""
    for number in range(count):
        await link.send(KIND, b"x" * 50_000)
        await link.send(KIND, number)
    return count


async def test_a_slow_reader_holds_the_sender_back_and_memory_is_bounded() -> None:
    async with pair() as (link, other):
        filling = asyncio.create_task(fill(link, 1000))  # 50 MB
        await eventually(lambda: link._wire._writers and other._wire.holding)
        sent = link._wire
        assert not filling.done()
        assert other._wire._unread < MAX_UNREAD + (1 << 18) + 50_020
        assert sent._unsent_size + sent._transport.get_write_buffer_size() < 2 * MAX_UNSENT  # type: ignore[union-attr]
        numbers = []
        async with asyncio.timeout(3 * LIMIT):
            async for _, content in other.frames():
                if isinstance(content, int):
                    numbers.append(content)
                    if content == 999:
                        break
        assert numbers == list(range(1000))
        await filling


async def test_many_senders_together_are_held_back_too() -> None:
    async with pair() as (link, other):
        filling = [asyncio.create_task(fill(link, 20)) for _ in range(50)]  # 50 MB
        await eventually(lambda: other._wire.holding and len(link._wire._writers) >= 40)
        wire = link._wire
        assert wire._unsent_size + wire._transport.get_write_buffer_size() < 3 * MAX_UNSENT  # type: ignore[union-attr]
        got = 0
        async with asyncio.timeout(3 * LIMIT):
            async for _, content in other.frames():
                got += isinstance(content, int)
                if got == 1000:
                    break
        await asyncio.gather(*filling)


async def test_small_frames_go_out_together() -> None:
    here, there = LinkNode("here"), LinkNode("there")
    async with there.listening(), TcpProxy(there.address) as proxy:
        link = await here.dial(proxy.address)
        other = await there.links.get()
        await eventually(lambda: other.clock_skew is not None)
        before = len(proxy.seen["there"])
        for number in range(100):
            await link.send(KIND, number)
        async with asyncio.timeout(LIMIT):
            async for _, content in other.frames():
                if content == 99:
                    break
        # Each record of TLS has 22 bytes of its own, besides the frames of 6 or 7.
        assert len(proxy.seen["there"]) - before < 100 * 7 + 10 * 22
        await here.close()


async def test_connect_asks_for_the_hello_when_it_is_said() -> None:
    node, seq = LinkNode(), 0

    def hello() -> Hello:
        nonlocal seq
        seq += 1
        return Hello(
            node=dialler.identity.node, run="0" * 16, name="x", version="1", vector={"a": seq}
        )

    dialler = LinkNode()
    async with node.listening():
        for expected in (1, 2):
            link = await connect(node.address, dialler.identity, hello)
            assert (await node.links.get()).peer.vector == {"a": expected}
            await link.close()
