"""A load put on the daemon and on the bare echo in turn, and the rows that come of it.

The rounds of both sides alternate, each side's process idle meanwhile, so that both meet the same
machine. The medians of the rounds are compared.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from tests.bench.figures import Row
from tests.bench.processes import echo, load

if TYPE_CHECKING:
    from pathlib import Path

    from tests.bench.load import Result
    from tests.support.daemon import Daemon

CONNECTIONS = 32
ROUNDS = 3


async def rounds(
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


def rows(
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


def ratio_row(what: str, ours: list[Result], echoed: list[Result], bound: float | None) -> Row:
    ratio = median(a.rate / b.rate for a, b in zip(ours, echoed, strict=True))
    if bound is None:
        return Row(what, f"{ratio:.2f}", "1")
    return Row(what, f"{ratio:.2f}", "1", f"≥ {bound:g}", ratio >= bound)
