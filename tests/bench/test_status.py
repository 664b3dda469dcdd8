"""Status of any of a million jobs: how many a second, and how long one waits."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

import orjson
import pytest

from tests.bench.past import KEEP_ALL, NO_ENGINE, fill
from tests.bench.rounds import ratio_row, rounds, rows
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.conftest import Report
    from tests.conftest import MakeDaemon

pytestmark = pytest.mark.bench

JOBS = 1_000_000
ASKED = 200_000
"""Different jobs that are asked for in a round, at most: more than a round has requests."""
SECONDS = 5
RATE = 12_000
P99_MS = 6.0
OVER_ECHO = 0.43
"""12 000 of the 28 000 requests/s that the echo makes where the rate was set."""


async def test_status_of_any_of_a_million_jobs(
    daemon: MakeDaemon, report: Report, tmp_path: Path
) -> None:
    node = await daemon(*KEEP_ALL, docker_host=NO_ENGINE, start=False)
    ids = await fill(node.data_dir, JOBS, 0)
    bodies = _status_bodies(tmp_path, random.sample(ids, min(ASKED, JOBS)))
    await node.start(wait_ready=False)
    # The check of so large a store goes on after the start, in time that nobody else wants.
    await eventually(lambda: "job store checked" in node.log, 300)
    job = await node.status(random.choice(ids))
    assert (job["status"], job["container"]["state"]) == ("complete", "removed")

    ours, echoed = await rounds(node, bodies, seconds=SECONDS)
    await node.kill()
    shutil.rmtree(node.data_dir)
    what = f"Status of any of {JOBS:,} jobs"
    report(
        *rows(what, ours, echoed, rate=RATE, p99=P99_MS),
        ratio_row(f"{what}, over bare echo", ours, echoed, OVER_ECHO),
    )


def _status_bodies(directory: Path, ids: list[str]) -> Path:
    call = {"jsonrpc": "2.0", "method": "ContainerService.Status", "id": 1}
    path = directory / "status.jsonl"
    with path.open("wb") as file:
        for job_id in ids:
            file.write(orjson.dumps({**call, "params": [{"job_id": job_id}]}) + b"\n")
    return path
