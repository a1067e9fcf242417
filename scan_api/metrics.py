"""Counters for Prometheus: how many scans, claims and requests, never whose."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from kit.errors import FanxingError

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
