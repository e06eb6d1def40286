"""The counters that Prometheus reads at /metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

SECONDS = (0.005, 0.01, 0.02, 0.03, 0.06, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Watched(Protocol):
    """The figures that are reported of an index."""

    name: str

    @property
    def rows(self) -> int:
        """How many rows can be found."""

    @property
    def queue_length(self) -> int:
        """How many queries wait for its model."""


class Monitoring:
    """The counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "cusa_requests", "Requests that were answered.", ["method", "route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "cusa_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.errors = Counter("cusa_errors", "Answers with a status from 400 on.", ["status"], registry=self.registry)
        self.hung_up = Counter(
            "cusa_hung_up", "Clients that closed before their answer was there.", registry=self.registry
        )
        self.batch_size = Histogram(
            "cusa_batch_size", "Queries that were answered together.", ["index"], buckets=SIZES, registry=self.registry
        )
        self.reloads = Counter(
            "cusa_reloads", "Indexes that were opened again.", ["index", "result"], registry=self.registry
        )
        self.under_way = Gauge("cusa_requests_under_way", "Requests that are being answered.", registry=self.registry)

    def watch(self, indexes: Iterable[Watched]) -> None:
        """Report the queue and the rows of these indexes from now on."""
        self.registry.register(_Indexes(list(indexes)))

    def text(self) -> bytes:
        """All counters in the text format of Prometheus."""
        return generate_latest(self.registry)


class _Indexes(Collector):
    def __init__(self, indexes: list[Watched]) -> None:
        self.indexes = indexes

    def collect(self) -> Iterable[GaugeMetricFamily]:
        queue = GaugeMetricFamily("cusa_queue_length", "Queries that wait for the model.", labels=["index"])
        rows = GaugeMetricFamily("cusa_index_rows", "Rows that can be found.", labels=["index"])
        for index in self.indexes:
            queue.add_metric([index.name], index.queue_length)
            rows.add_metric([index.name], index.rows)
        return [queue, rows]
