"""Counters for Prometheus: how many scans, claims and requests, never whose."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from kit.errors import FanxingError
from loyalty.fulfilment import Health

_FIRST_WORD = re.compile(r"\W")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """One process's counters, in a registry of their own so that several apps can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.scans = Counter("fanxing_scans", "Code texts judged, by verdict", ["verdict"], registry=self.registry)
        self.claims = Counter("fanxing_claims", "Claims, by outcome", ["outcome"], registry=self.registry)
        self.requests = Histogram(
            "fanxing_request_seconds",
            "Time to answer, by route and status",
            ["method", "route", "status"],
            buckets=_SECONDS,
            registry=self.registry,
        )

        self.order_steps = Counter(
            "fanxing_order_steps",
            "Steps of orders, by provider, state reached and teller",
            ["provider", "state", "by"],
            registry=self.registry,
        )
        self.orders_open = self._gauge("fanxing_orders_open", "Orders without an end", "provider", "state")
        self.order_oldest = self._gauge("fanxing_order_oldest_open_seconds", "Age of the oldest open order", "provider")
        self.order_attention = self._gauge("fanxing_orders_attention", "Orders for the operator, by reason", "reason")
        self.outbox_due = self._gauge("fanxing_outbox_due", "Messages whose time has come", "topic")
        self.outbox_late = self._gauge("fanxing_outbox_late_seconds", "How late the latest of them is", "topic")
        self.outbox_aside = self._gauge("fanxing_outbox_set_aside", "Messages that their worker broke on", "topic")

    def _gauge(self, name: str, about: str, *labels: str) -> Gauge:
        return Gauge(name, about, labels, registry=self.registry)

    def order_moved(self, provider: str, state: str, by: str) -> None:
        """Count a step of an order."""
        self.order_steps.labels(provider, state, by).inc()

    def fulfilment_health(self, health: Health) -> None:
        """Show how fulfilment stood a moment ago. Every server shows the same: take the maximum, not the sum."""
        gauges = (self.orders_open, self.order_oldest, self.order_attention)
        for gauge in (*gauges, self.outbox_due, self.outbox_late, self.outbox_aside):
            gauge.clear()
        for (provider, state), count in health.open_orders.items():
            self.orders_open.labels(provider, state).set(count)
        for provider, age_s in health.oldest_open_s.items():
            self.order_oldest.labels(provider).set(age_s)
        for reason, count in health.attention.items():
            self.order_attention.labels(reason).set(count)
        late_s: dict[str, float] = {}
        for topic, backlog in health.backlogs.items():
            # Every webhook has a topic of its own; a label for each would be too many.
            name = topic if topic.startswith("order.") else _FIRST_WORD.split(topic)[0]
            self.outbox_due.labels(name).inc(backlog.due)
            self.outbox_aside.labels(name).inc(backlog.set_aside)
            late_s[name] = max(backlog.late_s, late_s.get(name, 0.0))
            self.outbox_late.labels(name).set(late_s[name])

    @contextmanager
    def counting_claim(self) -> Iterator[None]:
        """Count a claim as granted, or under the code of the error that refused it."""
        try:
            yield
        except FanxingError as error:
            self.claims.labels(error.code).inc()
            raise
        self.claims.labels("granted").inc()

    def text(self) -> bytes:
        """The Prometheus text format, version 0.0.4."""
        return generate_latest(self.registry)
