"""Create, acknowledged: how many a second, and how long one waits, with the engine idle and busy.

The rounds of both sides alternate, each side's process idle meanwhile, so that both meet the same
machine. The medians of the rounds are compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import TYPE_CHECKING

import apsw
import orjson
import pytest

from tests.bench.figures import Row
from tests.bench.processes import echo, load

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.conftest import Report
    from tests.bench.load import Result
    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon
    from tests.support.engine import Engine

pytestmark = pytest.mark.bench

CONNECTIONS = 32
ROUNDS = 3
ENDLESS_QUEUE = ("--queue-size", "10000000")
NO_ENGINE = "unix:///nonexistent.sock"


async def test_create_while_the_engine_is_idle(
    daemon: MakeDaemon, report: Report, tmp_path: Path
) -> None:
    # Without an engine the jobs wait in the queue, and nothing but Create is measured.
    node = await daemon(*ENDLESS_QUEUE, docker_host=NO_ENGINE, wait_ready=False)
    body = _create_body(tmp_path, image="nginx", arguments=[], env={})
    ours, echoed = await _rounds(node, body, seconds=5)
    created = await _figure(node, "container_manager_jobs_created_total")
    await node.kill()
    stored = _stored_jobs(node)
    shutil.rmtree(node.data_dir)

    # Killed without warning, the daemon must have kept all that it said it had created.
    assert stored == created >= sum(one.requests for one in ours)
    report(
        *_rows("Create", ours, echoed, rate=10_000, p99=10.0),
        _ratio_row("Create over bare echo", ours, echoed, 0.4),
    )


async def test_create_while_four_deployments_run(
    daemon: MakeDaemon, engine: Engine, image: str, report: Report, tmp_path: Path
) -> None:
    node = await daemon(*ENDLESS_QUEUE, "--worker-count", "4")
    # A container that takes no CPU: the hundred of them must not be what is measured.
    body = _create_body(tmp_path, image=image, arguments=["sleep", "86400"])
    try:
        before = await _deployed(node)
        # The first round's warm-up fills the queue for all that follows.
        ours, echoed = await _rounds(node, body, seconds=4, ours_first=True)
        deployed = await _deployed(node) - before
    finally:
        await node.kill()
        await asyncio.to_thread(_remove_containers_of, engine, node)
        shutil.rmtree(node.data_dir)

    assert deployed >= 10, f"only {deployed:g} deployments meanwhile: the workers did not run"
    report(
        *_rows("Create while 4 deploy", ours, echoed, rate=6_000, p99=40.0),
        _ratio_row("Create over bare echo while 4 deploy", ours, echoed, None),
        Row("deployments meanwhile", f"{deployed:.0f}", "-"),
    )


# The rounds


async def _rounds(
    node: Daemon, body: Path, *, seconds: float, ours_first: bool = False
) -> tuple[list[Result], list[Result]]:
    """Ours and the echo's results, measured in turn."""
    ours: list[Result] = []
    echoed: list[Result] = []
    async with echo() as (echo_port, _):
        sides = [(echo_port, '"method"', echoed), (node.port, '"result"', ours)]
        if ours_first:
            sides.reverse()
        for _ in range(ROUNDS):
            for port, marker, results in sides:
                results.append(
                    await load(
                        port, body, seconds=seconds, connections=CONNECTIONS, marker=marker
                    )
                )  # fmt: skip
    return ours, echoed


def _rows(
    what: str, ours: list[Result], echoed: list[Result], *, rate: float, p99: float
) -> list[Row]:
    our_rate, echo_rate = (median(one.rate for one in side) for side in (ours, echoed))
    our_p99, echo_p99 = (median(one.p99_ms for one in side) for side in (ours, echoed))
    our_p50, echo_p50 = (median(one.p50_ms for one in side) for side in (ours, echoed))
    worst = max(one.max_ms for one in ours)
    load_cpu = max(one.cpu for one in [*ours, *echoed])
    return [
        Row(
            f"{what}, {CONNECTIONS} connections, requests/s",
            f"{our_rate:,.0f}",
            f"{echo_rate:,.0f} (bare echo)",
            f"≥ {rate:,.0f}",
            our_rate >= rate,
        ),
        Row(
            f"{what}, p99",
            f"{our_p99:.1f} ms (p50 {our_p50:.1f}, worst {worst:.0f})",
            f"{echo_p99:.1f} ms (p50 {echo_p50:.1f})",
            f"≤ {p99:g} ms",
            our_p99 <= p99,
        ),
        Row(f"{what}: the load's own share of a core, at most", f"{load_cpu:.2f}", "-"),
    ]


def _ratio_row(what: str, ours: list[Result], echoed: list[Result], bound: float | None) -> Row:
    ratio = median(a.rate / b.rate for a, b in zip(ours, echoed, strict=True))
    if bound is None:
        return Row(what, f"{ratio:.2f}", "1")
    return Row(what, f"{ratio:.2f}", "1", f"≥ {bound:g}", ratio >= bound)


def _create_body(directory: Path, **spec: object) -> Path:
    request = {
        "jsonrpc": "2.0",
        "method": "ContainerService.Create",
        "params": [spec],
        "id": 1,
    }
    path = directory / "create.json"
    path.write_bytes(orjson.dumps(request))
    return path


# What the daemon says and leaves


async def _figure(node: Daemon, name: str) -> float:
    """A figure of /metrics, named with its labels."""
    status, text = await node.get("/metrics")
    assert status == 200
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    assert found is not None, f"no {name} in:\n{text}"
    return float(found[1])


async def _deployed(node: Daemon) -> float:
    return await _figure(node, 'container_manager_jobs_ended_total{status="complete"}')


def _stored_jobs(node: Daemon) -> int:
    database = apsw.Connection(str(node.data_dir / "jobs.sqlite"))
    with contextlib.closing(database):
        count: int = database.execute("SELECT count(*) FROM job").get
        return count


def _remove_containers_of(engine: Engine, node: Daemon) -> None:
    """Several at a time: one after the other takes longer than the bench itself."""
    ours = [id_ for id_, home in engine.homes().items() if home.endswith(f":{node.data_dir}")]

    def remove(container: str) -> None:
        engine.request("DELETE", f"/containers/{container}", {"force": "1", "v": "1"})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(remove, ours))
