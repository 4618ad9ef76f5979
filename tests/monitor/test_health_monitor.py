"""The health monitor on real services: in this process, and as the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result
from client_helpers import Services
from http_helpers import free_port
from slack_helpers import TOKEN, Answer, SlackStandIn
from sql_helpers import Sql, make_jobs, make_run, make_submitted, seconds_ago, watch
from waiting import until

from jobmon.cli import main
from jobmon.client.errors import RequestRefused
from jobmon.client.requester import Requester
from jobmon.config import Config, ConfigError
from jobmon.monitor import HealthMonitor


@contextmanager
def running(monitor: HealthMonitor) -> Iterator[HealthMonitor]:
    """It runs."""
    thread = threading.Thread(target=monitor.run)
    thread.start()
    try:
        yield monitor
    finally:
        monitor.stop()
        thread.join(60)
        assert not thread.is_alive()


def letter(db: Any, run: int) -> str:
    ((status,),) = db.query("SELECT status FROM workflow_run WHERE workflow_run_id = %s", (run,))
    return str(status)


def watched(jsm: Sql, config: Config) -> None:
    """A monitor like this one has watched for the whole of the threshold; the next look is no pause."""
    watch(jsm, config.loss_threshold + 100)


def test_a_lost_run_is_ended_and_told(
    requester: Requester, config: Config, slack: SlackStandIn, db: Any, jsm: Sql
) -> None:
    with seconds_ago(jsm, 1000):
        ours, other = make_run(jsm, slack_channel="#sims"), make_run(jsm)
    alive = make_run(jsm)
    watched(jsm, config)
    with running(HealthMonitor(requester, config)):
        until(lambda: slack.texts("#sims") and slack.texts("wf"))
    assert "".join(letter(db, run) for run in (ours, other, alive)) == "EER"
    assert (
        f"Workflow run {ours} of workflow" in slack.texts("#sims")[0] and "is lost" in slack.texts("#sims")[0]
    )
    assert len(slack.messages) == 2


def test_slack_is_not_there_and_runs_are_ended_all_the_same(
    requester: Requester, config: Config, slack: SlackStandIn, db: Any, jsm: Sql
) -> None:
    slack.down = Answer(hang=True, arrives=False)
    with seconds_ago(jsm, 1000):
        runs = [make_run(jsm) for _ in range(3)]
    watched(jsm, config)
    with running(HealthMonitor(requester, config)) as monitor:
        until(lambda: {letter(db, run) for run in runs} == {"E"})
        until(lambda: len(slack.requests) == 1)
        # it can look again while Slack hangs
        run = make_run(jsm)
        jsm.call("update_workflow_run", wfr_id=run, status="E")
        with seconds_ago(jsm, 1000):
            late = make_run(jsm)
        assert monitor.look()
        assert letter(db, late) == "E"
        assert monitor.seconds_since_look < 60
        slack.down = None
        slack.go_on.set()
        until(lambda: not requester.get_rows("pending_notifications"))
    assert len(slack.texts("wf")) >= 4, "the one that hung was answered without having arrived"


def test_no_run_is_lost_right_after_the_monitor_has_started(
    requester: Requester, config: Config, db: Any, jsm: Sql
) -> None:
    with seconds_ago(jsm, 1000):
        run = make_run(jsm)
    monitor = HealthMonitor(requester, config)
    assert [monitor.look() for _ in range(3)] == [True] * 3
    assert letter(db, run) == "R"


def test_lost_job_instances_and_their_run_are_ended(
    requester: Requester, config: Config, slack: SlackStandIn, db: Any, jsm: Sql
) -> None:
    """Nobody else is there to do it: neither the worker nor a distributor."""
    with seconds_ago(jsm, 1000):
        dag_id, _ = make_jobs(jsm, 1, max_attempts=1)
        run = make_submitted(jsm, dag_id)
        jsm.call("claim_jobs", executor_type="X", dag_id=dag_id, lease_seconds=60)
    watched(jsm, config)
    with running(HealthMonitor(requester, config)):
        until(lambda: slack.texts("wf"))
    assert letter(db, run) == "E"
    assert "has ended in ERROR" in slack.texts("wf")[0]
    assert db.query("SELECT status, error_message LIKE 'Lost:%%' FROM job_instance") == [("E", 1)]


def test_a_violated_audit_is_an_alarm(
    requester: Requester, config: Config, slack: SlackStandIn, db: Any, jsm: Sql
) -> None:
    _, jobs = make_jobs(jsm, 2, [(0, 1)])
    assert HealthMonitor(requester, config).examine()
    audits = requester.get_rows("audits")
    assert len(audits) >= 10 and not any(row["violated_since"] for row in audits)
    db.query("UPDATE job_gate SET upstreams_pending = 7 WHERE job_id = %s", (jobs[1],))
    try:
        with running(HealthMonitor(requester, config)):
            until(lambda: slack.texts("wf"))
    finally:
        db.query("UPDATE job_gate SET upstreams_pending = 1 WHERE job_id = %s", (jobs[1],))
    (text,) = slack.texts("wf")
    assert "audit_gate must be empty" in text and f'"job_id": {jobs[1]}' in text
    assert HealthMonitor(requester, config).examine()
    assert not any(row["violated_since"] for row in requester.get_rows("audits"))


def test_one_part_that_fails_stops_no_other(
    requester: Requester, config: Config, db: Any, jsm: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    with seconds_ago(jsm, 1000):
        run = make_run(jsm)
    watched(jsm, config)
    monitor = HealthMonitor(requester, config)
    monkeypatch.setattr(monitor, "_look_at_instances", lambda: 1 / 0)
    assert monitor.look() is False
    assert letter(db, run) == "E"
    assert monitor.seconds_since_look == float("inf")
    monkeypatch.setattr(monitor, "_look_at_nodes", lambda: 1 / 0)
    assert monitor.examine() is False
    num_audits = len(requester.get_rows("audits"))
    assert num_audits >= 10
    # an audit that can't be read keeps no other from being read, and is not tried again at once
    broken = requester.get

    def get(route: str, **arguments: Any) -> Any:
        if route == "audit_gate":
            raise RequestRefused("NOT_FOUND", "gone", "", 404)
        return broken(route, **arguments)

    db.query("TRUNCATE TABLE audit_state")
    monkeypatch.setattr(requester, "get", get)
    assert HealthMonitor(requester, config).examine() is False
    assert db.query("SELECT COUNT(*) FROM audit_state") == [(num_audits - 1,)]


def test_looks_do_not_wait_for_audits(
    requester: Requester, config: Config, db: Any, jsm: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On large tables these take minutes."""
    reading, go_on = threading.Event(), threading.Event()

    def slow(name: str) -> None:
        reading.set()
        go_on.wait(60)

    with seconds_ago(jsm, 1000):
        run = make_run(jsm)
    watched(jsm, config)
    monitor = HealthMonitor(requester, config)
    monkeypatch.setattr(monitor, "_look_at_audit", slow)
    with running(monitor):
        try:
            assert reading.wait(60)
            until(lambda: letter(db, run) == "E")
            assert monitor.look()
        finally:
            go_on.set()


def test_thresholds_must_fit_together(requester: Requester, config: Config) -> None:
    with pytest.raises(ConfigError, match="six times monitor_poll_interval"):
        HealthMonitor(requester, replace(config, loss_threshold=59, monitor_poll_interval=10))


# The commands ----------------------------------------------------------------------------------------


@contextmanager
def command(services: Services, log: Path, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """``jobmon start health_monitor`` as a process."""
    environ = {**services.environ, **{f"JOBMON_{key.upper()}": str(value) for key, value in settings.items()}}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobmon.cli", "start", "health_monitor"],
            env=environ, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def get(url: str) -> requests.Response | None:
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(url, timeout=10)
        except (requests.ConnectionError, requests.Timeout):
            return None


def test_the_command(
    services: Services, requester: Requester, slack: SlackStandIn, db: Any, jsm: Sql, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    make_run(jsm, "E", slack_channel="#sims")
    url = f"http://127.0.0.1:{(port := free_port())}"
    settings = {"slack_token": TOKEN, "slack_base_url": slack.url, "monitor_port": port}
    with command(services, log, **settings, monitor_poll_interval=1) as process:
        until(lambda: slack.texts("#sims") or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        until(lambda: (answer := get(f"{url}/readyz")) is not None and answer.status_code == 200)
        healthz, metrics = get(f"{url}/healthz"), get(f"{url}/metrics")
        assert healthz is not None and healthz.json() == {"status": "ok"}
        assert metrics is not None
        assert 'jobmon_monitor_looks_total{outcome="well"}' in metrics.text
        # counted when the answer has come, which is after the message has arrived
        for line in ('jobmon_notifications_total{outcome="sent"} 1.0', "jobmon_notifications_pending 0.0"):
            until(lambda line=line: line in str(getattr(get(f"{url}/metrics"), "text", "")))
        (state,) = requester.get_rows("monitor_state")
        assert state["seconds_since_check"] < 60
        # a second one beside it does no harm; but not on the same port
        with command(services, log, **settings) as second:
            assert second.wait(60) == 1
        assert "monitor_port" in log.read_text() and "Traceback" not in log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert "health monitor: left" in log.read_text()
    assert TOKEN not in log.read_text()


def status(services: Services, tmp_path: Path, *words: str, **settings: Any) -> Result:
    rc = tmp_path / "rc.json"
    config = services.config
    ports = {"host": config.host, "jsm_port": config.jsm_port, "jqs_port": config.jqs_port}
    rc.write_text(json.dumps({**ports, **settings}))
    result = CliRunner().invoke(main, ["--config", str(rc), "status", *words], env={"JOBMON_RC": None})
    assert "Traceback" not in result.output
    return result


def test_the_status_when_all_is_well(
    services: Services,
    requester: Requester,
    config: Config,
    jsm: Sql,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules["jobmon.cli.status"], "TIMEOUT", 60)
    never = status(services, tmp_path)
    assert never.exit_code == 1 and "no health monitor has ever looked" in never.output
    monitor = HealthMonitor(requester, config)
    assert monitor.look() and monitor.examine()
    result = status(services, tmp_path)
    assert result.exit_code == 0, result.output
    for text in (
        "jsm",
        "jqs",
        "ready",
        "health monitor: looked",
        "none is waiting",
        "none is failing",
        "All is well.",
    ):
        assert text in result.output
    assert "are empty" in result.output
    document = json.loads(status(services, tmp_path, "-o", "json").stdout)
    assert document["problems"] == [] and [one["ready"] for one in document["services"]] == [True, True]
    assert document["services"][0]["schema_version"] == document["services"][1]["schema_version"] >= 5
    assert document["monitor_state"]["num_pending_notifications"] == 0


def test_the_status_names_problems(
    services: Services, requester: Requester, db: Any, jsm: Sql, tmp_path: Path, tell: Callable[..., None]
) -> None:
    with seconds_ago(jsm, 500):
        jsm.call("log_monitor_heartbeat", poll_seconds=10)
        dag_id, _ = make_jobs(jsm, 1)
        make_submitted(jsm, dag_id)
        jsm.call("claim_jobs", executor_type="X", dag_id=dag_id, lease_seconds=60)
    tell("typo", "1", "2")
    (one,) = requester.post("claim_notifications", claim_token="t")["notifications"]
    requester.post(
        "log_notification",
        notification_id=one["notification_id"],
        claim_token="t",
        error_message="channel_not_found",
        needs_help=1,
    )
    requester.post("log_audit", audit="audit_gate", num_violations=2, sample='[{"job_id": 1}]')
    db.query("INSERT INTO failing_node VALUES ('node7', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), 20, 15)")
    result = status(services, tmp_path)
    assert result.exit_code == 1
    for text in (
        "no health monitor has looked for",
        "1 job instances are lost",
        "2 notifications to typo wait for",
        "channel_not_found",
        "audit_gate is violated since",
        "node node7 is failing since",
    ):
        assert text in result.output
    document = json.loads(status(services, tmp_path, "-o", "json").stdout)
    assert len(document["problems"]) >= 5


def test_the_status_of_services_that_are_away(services: Services, tmp_path: Path) -> None:
    result = status(services, tmp_path, jsm_port=free_port(), jqs_port=free_port())
    assert result.exit_code == 1
    assert "jsm is not ready: no answer" in result.output and "jqs is not ready: no answer" in result.output
