"""The broker's figures on Jupyter's own ``/metrics``, in the format of Prometheus.

They are read when somebody asks. A process has one collector, whatever the number of its servers: their figures are added
up, since a metric may be reported once only. ``docs/operations.md`` describes each metric.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from threading import Lock

from prometheus_client.core import REGISTRY, CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from ebus_jupyter.broker.figures import Figures, Timing
from ebus_jupyter.broker.host import Broker

KINDS = ("kernel", "page", "client", "server")


class Metrics(Collector):
    """Reports the figures of the brokers of this process, while there are any."""

    def __init__(self) -> None:
        self._brokers: list[Broker] = []
        self._lock = Lock()  # two servers of one process may have a thread each

    def add(self, broker: Broker) -> None:
        """Report on ``broker`` until it is removed."""
        with self._lock:
            self._brokers = [*self._brokers, broker]
            if len(self._brokers) == 1:
                REGISTRY.register(self)

    def remove(self, broker: Broker) -> None:
        """Report on ``broker`` no longer. Without effect where it was not added."""
        with self._lock:
            had, self._brokers = self._brokers, [other for other in self._brokers if other is not broker]
            if had and not self._brokers:
                REGISTRY.unregister(self)

    def describe(self) -> list[Metric]:
        """Nothing: figures are not to be made for the sake of their names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics, as they are now."""
        return _metrics([broker.figures() for broker in self._brokers])


METRICS = Metrics()
"""The collector of this process."""


def _metrics(all_figures: list[Figures]) -> Iterator[Metric]:
    connections: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
    refusals: Counter[str] = Counter()
    for figures in all_figures:
        connections.update(figures.connections)
        refusals.update(figures.refusals)
    by_kind = GaugeMetricFamily("ebus_connections", "Clients that are connected, by kind.", labels=["kind"])
    for kind, count in connections.items():
        by_kind.add_metric([kind], count)
    yield by_kind
    by_code = CounterMetricFamily("ebus_refusals", "Errors that clients were told, by code.", labels=["code"])
    for code, count in sorted(refusals.items()):
        by_code.add_metric([code], count)
    yield by_code

    def total(value: Callable[[Figures], float]) -> float:
        return sum(map(value, all_figures))

    yield GaugeMetricFamily("ebus_buses", "Buses that are loaded.", total(lambda f: f.buses))
    yield GaugeMetricFamily("ebus_subscriptions", "Subscriptions to buses.", total(lambda f: f.subscriptions))
    yield CounterMetricFamily("ebus_writes", "Writes that were committed.", total(lambda f: f.writes))
    yield CounterMetricFamily("ebus_lags", "Readers that were told of missed messages.", total(lambda f: f.lags))
    yield CounterMetricFamily("ebus_received_bytes", "Bytes from clients.", total(lambda f: f.received_bytes))
    yield CounterMetricFamily("ebus_sent_bytes", "Bytes to clients.", total(lambda f: f.sent_bytes))
    yield from _timing(
        "ebus_receive", "Event loop taken by a piece of work on messages", [f.receiving for f in all_figures]
    )
    yield from _timing("ebus_commit", "Commit of one batch of writes", [f.committing for f in all_figures])
    yield from _timing("ebus_delivery", "Event loop taken by one delivery", [f.delivering for f in all_figures])


def _timing(name: str, what: str, timings: list[Timing]) -> Iterator[Metric]:
    count, seconds = sum(timing.count for timing in timings), sum(timing.seconds for timing in timings)
    yield SummaryMetricFamily(f"{name}_seconds", f"{what}, in seconds.", count_value=count, sum_value=seconds)
    longest = max((timing.longest for timing in timings), default=0.0)
    yield GaugeMetricFamily(f"{name}_seconds_max", f"{what}: the longest since the start, in seconds.", longest)
