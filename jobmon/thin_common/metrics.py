"""Metrics in Prometheus's format, summed over all worker processes of a service.

With the variable PROMETHEUS_MULTIPROC_DIR set before this module is imported (:mod:`jobmon.thin_common.serve`
does so) each process keeps its numbers in a file there, and whichever process is asked adds them up.
"""

from __future__ import annotations

import os
from functools import lru_cache

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

# Seconds. A small call takes 1 to 5 ms, a list of 100,000 documents some seconds.
_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

REQUESTS = Counter("jobmon_http_requests", "Requests answered", ["service", "route", "status"])
DURATION = Histogram(
    "jobmon_http_request_duration_seconds", "Time to answer, seconds", ["service", "route"], buckets=_BUCKETS
)
RETRIES = Counter(
    "jobmon_db_retries", "Calls done again after an error of the database", ["service", "errno"]
)
POOL_TIMEOUTS = Counter(
    "jobmon_db_pool_timeouts", "Requests refused as no connection became free", ["service"]
)
CATALOG_LOADS = Counter(
    "jobmon_catalog_loads", "Times the routines or views were read", ["service", "outcome"]
)
REPLICA_LAG = Gauge(
    "jobmon_replica_lag_seconds",
    "How far the database that is read is behind the one that is written, seconds",
    ["service"],
    multiprocess_mode="livemostrecent",
)


@lru_cache(maxsize=2048)
def _requests(service: str, route: str, status: int) -> Counter:
    return REQUESTS.labels(service, route, str(status))


@lru_cache(maxsize=512)
def _duration(service: str, route: str) -> Histogram:
    return DURATION.labels(service, route)


def count_request(service: str, route: str, status: int, seconds: float) -> None:
    """Count one answer. ``route`` must come from a bounded set of names, never from the request as it is."""
    _requests(service, route, status).inc()
    _duration(service, route).observe(seconds)


def render(directory: str | None = None) -> bytes:
    """All metrics as text.

    Parameters:
        directory: where the processes' files are; the variable's value if None. Without one, this process's
            own.
    """
    directory = directory or os.environ.get(DIRECTORY_VARIABLE)
    if not directory:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=directory)
    return generate_latest(registry)
