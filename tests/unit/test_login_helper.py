"""Credential helpers: real programs, well-behaved and not."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from container_manager.engine.errors import EngineError, EngineRefused, EngineRejected
from container_manager.engine.login_helper import MAX_OUTPUT, get
from tests.support.credential_helpers import keeper, shell_helper
from tests.support.waiting import eventually
from tests.unit.builders import CANARY

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path


def on_path(directory: Path) -> dict[str, str]:
    return {"PATH": f"{directory}:{os.environ['PATH']}"}


async def failure(directory: Path, name: str, time_limit: float = 30) -> EngineError:
    """What is said of a helper that gives no login; never what it has printed."""
    with pytest.raises(EngineError) as caught:
        await get(name, "quay.io", on_path(directory), time_limit)
    said = str(caught.value)
    assert f"docker-credential-{name}" in said
    assert CANARY not in said
    assert CANARY not in repr(caught.value.__cause__)
    return caught.value


async def test_a_helper_is_told_the_server_and_gives_user_and_secret(tmp_path: Path) -> None:
    keeper(tmp_path, "store", {"quay.io": ("me", CANARY)})
    assert await get("store", "quay.io", on_path(tmp_path)) == ("me", CANARY)
    assert await get("store", "ghcr.io", on_path(tmp_path)) is None
    assert (tmp_path / "store.asked").read_text() == "get quay.io\nget ghcr.io\n"


async def test_an_empty_login_is_none_and_line_ends_do_not_matter(tmp_path: Path) -> None:
    shell_helper(tmp_path, "empty", """echo '{"ServerURL":"","Username":"","Secret":""}'""")
    assert await get("empty", "quay.io", on_path(tmp_path)) is None
    shell_helper(
        tmp_path, "lines", "printf '\\ncredentials not found in native keychain\\r\\n'; false"
    )
    assert await get("lines", "quay.io", on_path(tmp_path)) is None


async def test_a_helper_gets_the_given_variables_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELSEWHERE", "x")
    shell_helper(
        tmp_path, "env", """echo "{\\"Username\\":\\"$GIVEN-$ELSEWHERE\\",\\"Secret\\":\\"s\\"}" """
    )
    environment = {**on_path(tmp_path), "GIVEN": "y"}
    assert await get("env", "quay.io", environment) == ("y-", "s")


async def test_a_helper_need_not_read_what_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "docker-credential-deaf"
    path.write_text("""#!/bin/sh\nexec <&-\necho '{"Username":"u","Secret":"s"}'\n""")
    path.chmod(0o755)
    for _ in range(20):
        assert await get("deaf", "quay.io", on_path(tmp_path)) == ("u", "s")


@pytest.mark.parametrize("name", ["none", "", "../x", "a/b", "-", "a b", "a\nb", "."])
async def test_a_helper_that_there_is_not_is_named_with_the_remedy(
    tmp_path: Path, name: str
) -> None:
    """Also one outside the PATH, which a name with a slash would reach."""
    (tmp_path / "docker-credential-a").mkdir()
    shell_helper(tmp_path / "docker-credential-a", "b", "echo '{}'")
    (tmp_path / "docker-credential-a/docker-credential-b").rename(
        tmp_path / "docker-credential-a/b"
    )
    error = await failure(tmp_path, name)
    assert isinstance(error, EngineRejected)
    assert "Install it there" in str(error)
    assert "credsStore" in str(error)


async def test_a_file_that_cannot_be_executed_is_no_helper(tmp_path: Path) -> None:
    shell_helper(tmp_path, "plain", "").chmod(0o644)
    assert isinstance(await failure(tmp_path, "plain"), EngineRejected)
    (tmp_path / "docker-credential-lost").write_text("#!/nonexistent/interpreter\n")
    (tmp_path / "docker-credential-lost").chmod(0o755)
    error = await failure(tmp_path, "lost")
    assert "cannot be started (No such file or directory)" in str(error)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"echo {CANARY}", "no JSON object"),
        (f"""echo '["{CANARY}"]'""", "no JSON object"),
        (f"""echo '{{"Username":"u","Secret":"{CANARY}"'""", "no JSON object"),
        ("printf '\\377\\376'", "no JSON object"),
        ("true", "no JSON object"),
        (f"""echo '{{"Username":["{CANARY}"],"Secret":"s"}}'""", "no text"),
        ("""echo '{"Username":"u","Secret":null}'""", "no text"),
    ],
)
async def test_what_means_nothing_is_said_so_without_repeating_it(
    tmp_path: Path, script: str, words: str
) -> None:
    shell_helper(tmp_path, "mad", script)
    error = await failure(tmp_path, "mad")
    assert isinstance(error, EngineRejected)
    assert words in str(error)
    assert "echo quay.io | docker-credential-mad get" in str(error)


async def test_one_that_prints_without_end_is_ended(tmp_path: Path) -> None:
    shell_helper(tmp_path, "loud", f"echo $$ > {tmp_path}/pid; exec yes {CANARY}")
    error = await failure(tmp_path, "loud")
    assert isinstance(error, EngineRejected)
    assert f"more than {MAX_OUTPUT} bytes" in str(error)
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_a_failure_may_heal_and_says_how_to_look_at_it(tmp_path: Path) -> None:
    shell_helper(tmp_path, "locked", f"echo the keychain is locked {CANARY}; exit 3")
    error = await failure(tmp_path, "locked")
    assert isinstance(error, EngineRefused)
    assert "exit code 3" in str(error)
    assert "echo quay.io | docker-credential-locked get" in str(error)


async def test_one_that_hangs_is_ended_with_all_it_has_started(tmp_path: Path) -> None:
    shell_helper(
        tmp_path, "hung", f"echo $$ > {tmp_path}/pid; sleep 600 & echo $! >> {tmp_path}/pid; wait"
    )
    error = await failure(tmp_path, "hung", 0.5)
    assert isinstance(error, EngineRefused)
    assert "has not answered for quay.io within 0.5 s" in str(error)
    pids = [int(pid) for pid in (tmp_path / "pid").read_text().split()]
    assert len(pids) == 2
    await eventually(lambda: not any(alive(pid) for pid in pids))


async def test_one_that_hangs_is_ended_when_nobody_waits_any_more(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "started")
    shell_helper(
        tmp_path, "hung", f"echo $$ > {tmp_path}/pid; echo > {tmp_path}/started; exec sleep 600"
    )
    task = asyncio.create_task(get("hung", "quay.io", on_path(tmp_path)))
    await asyncio.to_thread((tmp_path / "started").read_bytes)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_what_a_helper_leaves_behind_with_its_output_open_holds_nobody_up(
    tmp_path: Path,
) -> None:
    shell_helper(tmp_path, "daemon", "setsid sleep 5 & exit 0")
    await failure(tmp_path, "daemon", 0.1)  # the event loop's first child opens what stays
    files = len(os.listdir("/proc/self/fd"))
    error = await failure(tmp_path, "daemon", 0.5)
    assert isinstance(error, EngineRefused)
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= files)


@pytest.mark.parametrize(
    "test",
    [
        test_a_helper_is_told_the_server_and_gives_user_and_secret,
        test_a_helper_need_not_read_what_it_is_told,
        test_one_that_prints_without_end_is_ended,
        test_one_that_hangs_is_ended_with_all_it_has_started,
        test_one_that_hangs_is_ended_when_nobody_waits_any_more,
        test_what_a_helper_leaves_behind_with_its_output_open_holds_nobody_up,
    ],
)
def test_the_same_holds_on_the_daemons_event_loop(
    tmp_path: Path, test: Callable[[Path], Coroutine[Any, Any, None]]
) -> None:
    """Which minds processes and pipes in a way of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test(tmp_path))


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not waited for yet does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
