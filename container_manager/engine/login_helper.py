"""Credential helpers: programs called `docker-credential-NAME`, which keep logins for docker.

`get` takes the server on stdin and prints a JSON object on stdout.
Source: https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import suppress

import orjson

from container_manager.engine.errors import EngineRefused, EngineRejected

TIME_LIMIT = 10.0
"""Seconds that a helper gets. Some ask a cloud; one that waits for a person never ends."""
MAX_OUTPUT = 256 * 1024
"""Bytes that are read of what a helper prints."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_NOT_FOUND = b"credentials not found in native keychain"


async def get(
    name: str, server: str, environment: Mapping[str, str], time_limit: float = TIME_LIMIT
) -> tuple[str, str] | None:
    """User name and secret that a helper has for a server; None where it has none.

    What the helper prints otherwise appears in no error, since it may be a secret.

    Args:
        name: the helper's name, without `docker-credential-`.
        server: the server's address as docker gives it.
        environment: the variables that the helper gets; it is looked for on their PATH.
        time_limit: in seconds.

    Raises:
        EngineRejected: there is no such helper, or what it prints means nothing.
        EngineRefused: it failed or took too long, which may heal.
    """
    program = f"docker-credential-{name}"
    path = shutil.which(program, path=environment.get("PATH")) if _NAME.fullmatch(name) else None
    if path is None:
        raise EngineRejected(
            f"the credential helper {program} is not on the PATH of this daemon. Install it "
            f"there, or take {name!r} out of credsStore and credHelpers in Docker's config.json"
        )
    try:
        async with asyncio.timeout(time_limit):
            code, output = await _run(path, server.encode(), environment)
    except TimeoutError as error:
        raise EngineRefused(
            f"the credential helper {program} has not answered for {server} within "
            f"{time_limit:g} s. Unlock what it waits for, or use a named credential"
        ) from error
    except OSError as error:
        raise EngineRefused(
            f"the credential helper {program} cannot be started ({error.strerror}). Mend {path}"
        ) from error
    if len(output) > MAX_OUTPUT:
        raise _meaningless(program, server, f"more than {MAX_OUTPUT} bytes")
    if code != 0:
        if output.strip() == _NOT_FOUND:
            return None
        raise EngineRefused(
            f"the credential helper {program} failed for {server} (exit code {code}). "
            f"`echo {server} | {program} get`, run as this daemon's user, says why"
        )
    try:
        found = orjson.loads(output)
        username, secret = found.get("Username", ""), found.get("Secret", "")
    except (ValueError, AttributeError):
        raise _meaningless(program, server, "something that is no JSON object") from None
    if not isinstance(username, str) or not isinstance(secret, str):
        raise _meaningless(program, server, "Username or Secret as something that is no text")
    return (username, secret) if username or secret else None


def _meaningless(program: str, server: str, what: str) -> EngineRejected:
    return EngineRejected(
        f"the credential helper {program} printed {what} for {server}. "
        f"Look at `echo {server} | {program} get`, run as this daemon's user, and mend the helper"
    )


async def _run(
    path: str, server: bytes, environment: Mapping[str, str]
) -> tuple[int | None, bytes]:
    """Exit code and output; of too much output no more than a byte past the limit."""
    process = await _start(path, server, environment)
    try:
        return await _heard(process)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        # Its end is only told when the pipe is closed, which what has left the group may hold open.
        process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]  # noqa: SLF001
        await process.wait()


async def _start(path: str, server: bytes, environment: Mapping[str, str]) -> Process:
    # A host's name fits into a pipe, so that nobody has to wait for the helper to read it.
    to_read, to_write = os.pipe()
    try:
        with os.fdopen(to_write, "wb") as file:
            file.write(server)
        return await asyncio.create_subprocess_exec(
            path,
            "get",
            stdin=to_read,
            stdout=PIPE,
            stderr=DEVNULL,
            env=dict(environment),
            # A group of its own, to be ended with all that it has started.
            start_new_session=True,
        )
    finally:
        os.close(to_read)


async def _heard(process: Process) -> tuple[int | None, bytes]:
    assert process.stdout is not None  # noqa: S101 - as it was started
    output = b""
    while len(output) <= MAX_OUTPUT:
        chunk = await process.stdout.read(MAX_OUTPUT + 1 - len(output))
        if not chunk:
            return await process.wait(), output
        output += chunk
    return None, output
