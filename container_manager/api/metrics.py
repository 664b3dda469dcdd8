"""`GET /metrics`: figures for Prometheus, read when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from container_manager import __version__
from container_manager.engine.docker import Engine
from container_manager.engine.pulls import Pulls
from container_manager.job import Status
from container_manager.work.ledger import Ledger
from container_manager.work.queue import JobQueue
from container_manager.work.slots import Slots
from container_manager.work.workers import Workers


class Metrics(Collector):
    """The figures of one daemon, in a registry of its own."""

    def __init__(
        self,
        ledger: Ledger,
        queue: JobQueue,
        slots: Slots,
        pulls: Pulls,
        workers: Workers,
        engine: Engine,
    ) -> None:
        """Read the figures of these."""
        self._ledger = ledger
        self._queue = queue
        self._slots = slots
        self._pulls = pulls
        self._workers = workers
        self._engine = engine
        self._registry = CollectorRegistry()
        self._calls: Counter[tuple[str, int]] = Counter()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def count_call(self, method: str, code: int) -> None:
        """Count one call."""
        self._calls[method, code] += 1

    def text(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """What prometheus-client asks at each scrape."""
        name = "container_manager_"
        info = GaugeMetricFamily(
            name + "info", "Always 1; the version is a label.", labels=("version",)
        )
        info.add_metric([__version__], 1)
        yield info
        yield _gauge(name + "queue_jobs", "Jobs that wait to be deployed.", len(self._queue))
        yield _gauge(name + "queue_size", "Jobs that may wait.", self._queue.size)
        slots = self._slots
        yield _gauge(name + "workers", "Deployments at a time at most.", slots.most)
        yield _gauge(name + "workers_limit", "Deployments at a time that pay now.", slots.limit)
        yield _gauge(name + "workers_busy", "Deployments under way.", slots.used)
        yield _gauge(name + "pulls", "Images that are being pulled.", len(self._pulls))
        up = self._engine.unavailable is None
        yield _gauge(name + "engine_up", "1 while the engine can be used.", int(up))
        calls = CounterMetricFamily(
            name + "requests",
            "JSON-RPC requests, by method and error code (0: answered).",
            labels=("method", "code"),
        )
        for (method, code), number in self._calls.items():
            calls.add_metric([method, str(code)], number)
        yield calls
        created = CounterMetricFamily(name + "jobs_created", "Jobs created since the start.")
        created.add_metric([], self._ledger.created)
        yield created
        outcomes = CounterMetricFamily(
            name + "jobs_ended", "Jobs that became final since the start.", labels=("status",)
        )
        for status in Status:
            if status.final:
                outcomes.add_metric([status.value], self._ledger.outcomes[status])
        yield outcomes
        deployments = SummaryMetricFamily(
            name + "deployment_seconds", "Time that workers spent on attempts to deploy."
        )
        deployments.add_metric([], self._workers.deployments, self._workers.deployment_seconds)
        yield deployments


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, documentation)
    gauge.add_metric([], value)
    return gauge
