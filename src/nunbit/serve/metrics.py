"""What the server counts, for Prometheus. No label has an unbounded number of values."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        names = ["method", "route", "status"]
        self._requests = Counter("nunbit_requests", "Answered requests.", names, registry=self._registry)
        self._seconds = Histogram(
            "nunbit_request_seconds", "Time of a request.", ["route"], buckets=_SECONDS, registry=self._registry
        )
        self.open = Gauge("nunbit_open_requests", "Requests being received or answered.", registry=self._registry)
        self.held_bytes = Gauge("nunbit_held_bytes", "Bodies of open requests.", registry=self._registry)
        self.waiting = Gauge("nunbit_waiting", "Pictures and texts waiting or being encoded.", registry=self._registry)
        self.chat = Gauge("nunbit_chat_waiting", "Questions waiting or being answered.", registry=self._registry)
        self.items = Gauge("nunbit_items", "Pictures in the collection.", registry=self._registry)
        self.batch_size = Histogram(
            "nunbit_batch_size",
            "Pictures or texts encoded at once.",
            ["kind"],
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self._registry,
        )
        self.encoding = Counter("nunbit_encoding_seconds", "Time spent encoding.", ["kind"], registry=self._registry)
        self.dropped = Counter(
            "nunbit_dropped", "Jobs whose client left before they were begun.", registry=self._registry
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self._registry)
