"""The processes that a bench starts beside the daemon, and what the kernel says of a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.echo import LISTENING
from tests.bench.load import PATIENCE, Result
from tests.support.daemon import ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_TICKS = os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[tuple[int, int]]:
    """The bare echo server; gives its port and its process id."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.echo", "--port", str(port)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        said = await asyncio.wait_for(process.stdout.readline(), 20)
        assert said.decode().strip() == LISTENING
        yield port, process.pid
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def load(
    port: int,
    body: Path,
    *,
    seconds: float,
    connections: int,
    marker: str,
    warm_up: float = 1.0,
) -> Result:
    """Put the load on a port; every answer has to be right."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.load", "--port", str(port)),
        *("--connections", str(connections), "--seconds", str(seconds)),
        *("--warm-up", str(warm_up), "--body-file", str(body), "--marker", marker),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(warm_up + seconds + PATIENCE + 20):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, f"the load ended with {process.returncode}"
    result = Result(**json.loads(out))
    assert result.errors == 0, f"{result.errors} errors, the first: {result.first_error}"
    return result


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process with all its threads has taken so far."""
    # The name, which may hold spaces and brackets, ends at the last bracket; see proc(5).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = fields[11:13]
    return (int(user) + int(system)) / _TICKS


def resident_mb(pid: int) -> float:
    """The memory that a process has resident, in 10^6 bytes."""
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6
