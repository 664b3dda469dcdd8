"""Create, acknowledged: how many a second, and how long one waits; the engine idle, and busy."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import apsw
import orjson
import pytest

from tests.bench.figures import Row
from tests.bench.rounds import ratio_row, rounds, rows

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.conftest import Report
    from tests.conftest import MakeDaemon
    from tests.support.daemon import Daemon
    from tests.support.engine import Engine

pytestmark = pytest.mark.bench

ENDLESS_QUEUE = ("--queue-size", "10000000")
NO_ENGINE = "unix:///nonexistent.sock"


async def test_create_while_the_engine_is_idle(
    daemon: MakeDaemon, report: Report, tmp_path: Path
) -> None:
    # Without an engine the jobs wait in the queue, and nothing but Create is measured.
    node = await daemon(*ENDLESS_QUEUE, docker_host=NO_ENGINE, wait_ready=False)
    body = _create_body(tmp_path, image="nginx", arguments=[], env={})
    ours, echoed = await rounds(node, body, seconds=5)
    created = await _figure(node, "container_manager_jobs_created_total")
    await node.kill()
    stored = _stored_jobs(node)
    shutil.rmtree(node.data_dir)

    # Killed without warning, the daemon must have kept all that it said it had created.
    assert stored == created >= sum(one.requests for one in ours)
    report(
        *rows("Create", ours, echoed, rate=10_000, p99=10.0),
        ratio_row("Create over bare echo", ours, echoed, 0.4),
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
        ours, echoed = await rounds(node, body, seconds=4, ours_first=True)
        deployed = await _deployed(node) - before
    finally:
        await node.kill()
        await asyncio.to_thread(_remove_containers_of, engine, node)
        shutil.rmtree(node.data_dir)

    assert deployed >= 10, f"only {deployed:g} deployments meanwhile: the workers did not run"
    report(
        *rows("Create while 4 deploy", ours, echoed, rate=6_000, p99=40.0),
        ratio_row("Create over bare echo while 4 deploy", ours, echoed, None),
        Row("deployments meanwhile", f"{deployed:.0f}", "-"),
    )


# The request


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
