"""kill -9 of the services and of the database while clients work: what was acknowledged stays, nothing is
done twice, nobody is stuck, and the audits are empty.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from http_helpers import Service, free_port
from lives_helpers import Lives

from jobmon.db import catalog
from jobmon.db.connect import connect
from jobmon.db.embedded import EmbeddedServer

Start = Callable[..., Service]

CLIENTS = 6


class ClientsOfJsm(Lives):
    """They repeat every call until it is answered.

    Parameters:
        url: of JSM.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.repeated = 0
        super().__init__(CLIENTS)

    def _call(self, client: int, path: str, **body: Any) -> Any:
        deadline = time.monotonic() + 90
        while True:
            try:
                response = requests.post(self.url + path, json=body, timeout=20)
            except requests.RequestException:
                response = None
            if response is not None and response.status_code == 200:
                return response.json()
            if response is not None and response.status_code != 503:
                raise AssertionError(f"{path} {body}: {response.status_code} {response.text}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{path}: no answer for 90 s")
            self.repeated += 1
            time.sleep(0.05)


def test_nothing_acknowledged_is_lost(
    tmp_path: Path, server: Any, start_service: Start, make_own: Any
) -> None:
    if server.embedded is None:
        pytest.skip("the server is not ours to kill")
    with EmbeddedServer(tmp_path / "data", free_port()) as embedded:  # durable, as in earnest
        database = make_own(embedded)
        port = free_port()
        jsm = start_service("jsm", database, jsm_port=port)
        lives = ClientsOfJsm(jsm.url)
        lives.go_on(10)

        [worker] = jsm.workers()
        os.kill(worker, signal.SIGKILL)
        lives.go_on(10)
        embedded.kill()
        embedded.start()
        lives.go_on(10)
        jsm.kill()
        start_service("jsm", database, jsm_port=port)
        lives.go_on(10)
        embedded.kill()
        embedded.start()
        lives.go_on(10)
        lives.finish()

        assert lives.repeated
        admin = connect(database.admin)
        found = dict(catalog.query(admin, "SELECT job_id, status FROM job"))
        assert found == lives.ended
        # each was done once, step by step, and told once
        assert catalog.query(admin, "SELECT COUNT(*) FROM job_instance") == [(len(found),)]
        steps = Counter(
            path
            for (path,) in catalog.query(
                admin,
                "SELECT GROUP_CONCAT(status ORDER BY job_status_log_id SEPARATOR '')"
                " FROM job_status_log GROUP BY job_id",
            )
        )
        ends = Counter(found.values())
        assert steps == {"GQIRD": ends["D"], "GQIREF": ends["F"]}
        errors = catalog.query(admin, "SELECT COUNT(*) FROM job_instance_error_log")
        assert errors == [(ends["F"],)]
        audits = catalog.query(
            admin,
            "SELECT TABLE_NAME FROM information_schema.VIEWS"
            " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'audit\\_%%'",
        )
        assert len(audits) > 5
        for (view,) in audits:
            assert catalog.query(admin, f"SELECT * FROM `{view}`") == [], view
        admin.close()
