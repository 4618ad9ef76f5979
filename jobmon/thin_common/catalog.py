"""What a service serves, as the database says it, kept up to date in the background."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import pymysql

from jobmon.thin_common import metrics
from jobmon.thin_common.errors import RelayError

logger = logging.getLogger(__name__)

C = TypeVar("C")

_REFRESH_SECONDS = 10.0  # a change of the routines or views is seen after this time at the latest
_ABSENT_SECONDS = 0.5  # pause between tries while there is no catalog at all
_SHORTEST_SECONDS = 1.0  # pause between loads that requests ask for
_START_SECONDS = 1.0  # a new service waits this long for its first catalog before it begins to answer


class CatalogKeeper(Generic[C]):
    """Loads a catalog, keeps it, and loads it again now and then or when a request found it wanting.

    Requests only ever read :attr:`current`; a failed load leaves the last catalog in place.

    Parameters:
        name: ``jsm`` or ``jqs``.
        load: reads the catalog from the database.
    """

    def __init__(self, name: str, load: Callable[[], C]) -> None:
        self._name = name
        self._load = load
        self._lock = threading.Lock()
        self._tried = float("-inf")
        self._loaded = threading.Event()
        self._stopped = threading.Event()
        self.current: C | None = None

    def start(self) -> None:
        """Begin to load in the background, for good; wait a moment for the first load."""
        threading.Thread(target=self._keep, name=f"{self._name}-catalog", daemon=True).start()
        self._loaded.wait(_START_SECONDS)

    def stop(self) -> None:
        """End the background loads."""
        self._stopped.set()

    def wait_stopped(self, seconds: float) -> bool:
        """Wait so long for the end of the background loads; whether they have ended."""
        return self._stopped.wait(seconds)

    def _keep(self) -> None:
        while not self._stopped.is_set():
            with self._lock:
                self._try()
            self._stopped.wait(_ABSENT_SECONDS if self.current is None else _REFRESH_SECONDS)

    def _try(self) -> None:
        self._tried = time.monotonic()
        try:
            self.current = self._load()
        except (RelayError, pymysql.err.Error, OSError) as error:
            metrics.CATALOG_LOADS.labels(self._name, "failed").inc()
            logger.warning("catalog not loaded", extra={"service": self._name, "error": str(error)})
        except Exception:  # must not end the thread that is to heal it
            metrics.CATALOG_LOADS.labels(self._name, "failed").inc()
            logger.exception("catalog not loaded", extra={"service": self._name})
        else:
            metrics.CATALOG_LOADS.labels(self._name, "ok").inc()
            if not self._loaded.is_set():
                logger.info("catalog loaded", extra={"service": self._name})
            self._loaded.set()

    def refresh(self) -> C | None:
        """Load again because a request asks for what is not there; return the catalog, old or new.

        At most about once a second, so that nobody can make the service do nothing else.
        """
        due = time.monotonic() - self._tried >= _SHORTEST_SECONDS
        if due and self._lock.acquire(blocking=False):
            try:
                self._try()
            finally:
                self._lock.release()
        return self.current

    def refresh_since(self, moment: float) -> C | None:
        """Load again because the database contradicts the catalog; return the catalog, old or new.

        Parameters:
            moment: when that was, by ``time.monotonic``. A load that began later is new enough.
        """
        with self._lock:
            if self._tried <= moment:
                self._try()
        return self.current

    def ensure(self) -> None:
        """Load the catalog now if there is none.

        Raises:
            RelayError: DATABASE_UNAVAILABLE when that did not succeed.
        """
        if self.current is None:
            with self._lock:
                if self.current is None:
                    self._try()
        self.require()

    def require(self) -> C:
        """The catalog.

        Raises:
            RelayError: DATABASE_UNAVAILABLE as long as it was never loaded.
        """
        if self.current is None:
            raise RelayError(
                "DATABASE_UNAVAILABLE", "The database has not answered since the service started."
            )
        return self.current
