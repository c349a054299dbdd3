"""Figures of a server for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class ServerMetrics:
    """Counts of one server, in a registry of its own.

    Args:
        queue: images in the server.
        buffered: bytes of uploads that it holds.
        model: labels that say what it serves.
    """

    def __init__(
        self, queue: Callable[[], float], buffered: Callable[[], float], model: dict[str, str]
    ) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "artifactnet_requests", "Requests answered.", ("endpoint", "status"), registry=registry
        )
        self._seconds = Histogram(
            "artifactnet_request_seconds",
            "From the head of a request to the end of its answer.",
            ("endpoint",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._images = Counter(
            "artifactnet_images",
            "Images by verdict; failed: it could not be used.",
            ("verdict",),
            registry=registry,
        )
        self._batch_images = Histogram(
            "artifactnet_batch_images",
            "Images that passed through the model together.",
            buckets=_SIZES,
            registry=registry,
        )
        self._batch_seconds = Histogram(
            "artifactnet_batch_seconds",
            "Seconds of the model's thread for a batch.",
            buckets=_SECONDS,
            registry=registry,
        )
        for name, summary, value in (
            ("artifactnet_queue_images", "Images received and not answered yet.", queue),
            ("artifactnet_buffered_bytes", "Bytes of uploads held in memory.", buffered),
        ):
            Gauge(name, summary, registry=registry).set_function(value)
        about = Gauge("artifactnet_model", "The model served.", tuple(model), registry=registry)
        about.labels(**model).set(1)

    def count_request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def count_image(self, verdict: str) -> None:
        """Count an image by its verdict, or as ``failed``."""
        self._images.labels(verdict).inc()

    def count_batch(self, images: int, seconds: float) -> None:
        """Count a batch; from any thread."""
        self._batch_images.observe(images)
        self._batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
