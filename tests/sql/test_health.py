"""What the health monitor calls: lost runs and instances, failing nodes, audits, and the outbox."""

from __future__ import annotations

from typing import Any

import pytest
from sql_helpers import (
    Sql,
    clock,
    fresh,
    make_attempt,
    make_dag,
    make_jobs,
    make_run,
    make_submitted,
    make_workflow,
    outcomes,
    seconds_ago,
    statuses,
    watch,
)

pytestmark = pytest.mark.usefixtures("emptied")


def told(admin: Sql, *kinds: str) -> list[tuple[str | None, str]]:
    """Channel and message of what was to be told, in order."""
    return [
        (channel, message)
        for kind, channel, message in admin.raw(
            "SELECT kind, channel, message FROM notification ORDER BY notification_id"
        )
        if kind in kinds or not kinds
    ]


def stand(admin: Sql, run: int) -> str:
    """The letters of a run and of its workflow."""
    row = admin.row("workflow_run", run)
    return str(row["status"] + admin.row("workflow", row["workflow_id"])["status"])


def make_silent(jsm: Sql, seconds: int = 600, *, handed_over: bool = False, **more: Any) -> int:
    """A run that was started so long ago, and of which nothing was heard since."""
    with seconds_ago(jsm, seconds):
        if handed_over:
            return make_submitted(jsm, make_jobs(jsm, 1)[0], **more)
        return make_run(jsm, **more)


def end_lost(jsm: Sql, threshold: int = 300) -> list[int]:
    """The runs that are ended as lost."""
    found = jsm.call("end_lost_workflow_runs", loss_threshold_seconds=threshold)["workflow_runs"]
    return [one["workflow_run_id"] for one in found]


# Lost runs -------------------------------------------------------------------------------------------


def test_a_silent_run_is_lost_and_told(jsm: Sql, admin: Sql) -> None:
    quiet = make_silent(jsm)
    ours = make_silent(jsm, slack_channel="#sims")
    heard = make_silent(jsm)
    jsm.call(
        "log_heartbeat",
        dag_id=admin.row("workflow", admin.row("workflow_run", heard)["workflow_id"])["dag_id"],
    )
    young = make_silent(jsm, 200)
    watch(jsm, 400)
    assert end_lost(jsm) == [quiet, ours]
    assert [stand(admin, run) for run in (quiet, ours, heard, young)] == ["EE", "EE", "RR", "RR"]
    (default, text), (own, _) = told(admin)
    assert (default, own) == (None, "#sims")
    assert (
        f"Workflow run {quiet} of workflow" in text and "process 4242 on login1" in text and "is lost" in text
    )
    assert admin.row("workflow_run", quiet)["lost_date"] is not None
    assert [row[0] for row in admin.raw("SELECT workflow_run_id FROM lost_workflow_runs")] == [quiet, ours]
    with admin.unchanged():
        assert end_lost(jsm) == []


def test_a_lost_run_that_comes_back_reports_its_end(jsm: Sql, admin: Sql) -> None:
    run = make_silent(jsm, slack_channel="#sims")
    watch(jsm, 400)
    end_lost(jsm)
    jsm.call("update_workflow_run", wfr_id=run, status="D")
    kinds = [row[0] for row in admin.raw("SELECT kind FROM notification ORDER BY notification_id")]
    assert kinds == ["RUN_LOST", "RUN_DONE"]
    assert "which was in ERROR, is DONE" in told(admin, "RUN_DONE")[0][1]


def test_a_resumed_run_is_not_killed_for_its_predecessors_silence(jsm: Sql, admin: Sql) -> None:
    old = make_silent(jsm)
    watch(jsm, 400)
    new = make_run(jsm, workflow_id=admin.row("workflow_run", old)["workflow_id"])
    assert end_lost(jsm) == []
    assert stand(admin, new) == "RR"


def test_the_loss_leaves_the_jobs_for_a_resume(jsm: Sql, admin: Sql) -> None:
    with seconds_ago(jsm, 600):
        dag_id, jobs = make_jobs(jsm, 2)
        workflow_id = make_workflow(jsm, dag_id=dag_id)
        run = make_run(jsm, workflow_id=workflow_id)
        jsm.call("queue_jobs", dag_id=dag_id)
    watch(jsm, 400)
    assert end_lost(jsm) == [run]
    assert statuses(admin, jobs) == "QQ"
    assert stand(admin, make_run(jsm, workflow_id=workflow_id)) == "RR"


def test_a_workflow_that_is_done_stays_done(jsm: Sql, admin: Sql) -> None:
    run = make_silent(jsm)
    jsm.call("update_workflow", wf_id=admin.row("workflow_run", run)["workflow_id"], status="D")
    watch(jsm, 400)
    assert end_lost(jsm) == [run]
    assert stand(admin, run) == "ED"


@pytest.mark.parametrize("client", [True, False], ids=["wf.run", "wf.submit"])
def test_who_is_to_be_heard_of_a_submitted_run(jsm: Sql, admin: Sql, client: bool) -> None:
    """A client that waits for its own distributor is lost with it; what was handed over only waits."""
    more = {"executor_class": "LocalExecutor"} if client else {}
    run = make_silent(jsm, handed_over=True, slack_channel="#sims", **more)
    watch(jsm, 400)
    assert end_lost(jsm) == ([run] if client else [])
    assert stand(admin, run) == ("EE" if client else "RR")
    ((channel, text),) = told(admin)
    assert channel == "#sims"
    assert ("is lost" if client else "waits: no distributor was heard of for 10 min") in text
    end_lost(jsm)
    assert len(told(admin)) == 1, "told once"


def test_a_distributor_keeps_the_runs_that_wait_for_it(jsm: Sql, admin: Sql) -> None:
    ours = make_silent(jsm, handed_over=True, executor_class="LocalExecutor")
    waiting = make_silent(jsm, handed_over=True)
    emu = make_silent(jsm)
    assert jsm.call("log_distributor_heartbeat") == {"num_workflow_runs": 2}
    watch(jsm, 400)
    assert end_lost(jsm) == [emu]
    assert stand(admin, ours) == stand(admin, waiting) == "RR"
    assert [kind for (kind,) in admin.raw("SELECT kind FROM notification")] == ["RUN_LOST"]


# No false alarm --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("looks", "lost"),
    [
        ([], False),  # nobody has watched
        ([0], False),  # a monitor has just started
        ([400, 0], False),  # it, or the database, was away
        ([400, 390, 380, 370, 0], False),
        ([1000, 300, 290, 0], False),
        ([*range(250, -1, -10)], False),  # not for long enough
        ([*range(400, 39, -10)], False),  # it is gone
        ([*range(400, -1, -10)], True),
        ([*range(400, -1, -25)], True),  # a slow one
        ([0, *range(400, -1, -10)], True),  # the clock was set back before that
    ],
)
def test_silence_counts_while_somebody_watches(jsm: Sql, admin: Sql, looks: list[int], lost: bool) -> None:
    run = make_silent(jsm, 3600)
    now = clock(jsm)
    for look in looks:
        with seconds_ago(jsm, look, now):
            jsm.call("log_monitor_heartbeat", poll_seconds=10)
    with seconds_ago(jsm, 0, now):
        assert end_lost(jsm) == ([run] if lost else [])
    assert stand(admin, run) == ("EE" if lost else "RR")


def test_an_outage_ends_no_lease(jsm: Sql, admin: Sql) -> None:
    """Nobody could renew it; a distributor that knows better, and says nothing of watching, ends it."""
    dag_id, jobs = make_jobs(jsm, 3)
    jsm.call("queue_jobs", dag_id=dag_id)
    now = clock(jsm)
    with seconds_ago(jsm, 100, now):
        for job_id, lease in zip(jobs, (60, 70, 5), strict=True):
            make_attempt(jsm, job_id, "I", lease_seconds=lease)

    def lost() -> int:
        with seconds_ago(jsm, 0, now):
            answer = jsm.call("expire_job_instances", watched_only=1, max_job_instances=1)
        return len(answer["job_instance_ids"])

    assert lost() == 0, "nobody has watched"
    for look in (200, 0):
        with seconds_ago(jsm, look, now):
            jsm.call("log_monitor_heartbeat", poll_seconds=10)
    assert lost() == 0, "there was a pause"
    for look in range(65, -1, -5):
        with seconds_ago(jsm, look, now):
            jsm.call("log_monitor_heartbeat", poll_seconds=10)
    assert [lost(), lost(), lost()] == [1, 1, 0], "65 s are not the whole of a lease of 70 s"
    assert statuses(admin, jobs) == "QIQ"
    # five seconds are short beside a pause that nobody notices: that one has had a minute more
    with seconds_ago(jsm, 30, now):
        make_attempt(jsm, jobs[2], "I", lease_seconds=5)
    assert lost() == 0
    answer = jsm.call("expire_job_instances")
    assert len(answer["job_instance_ids"]) == 2
    assert statuses(admin, jobs) == "QQQ"


def test_watching_needs_an_interval(jsm: Sql) -> None:
    with jsm.refused("INVALID_PARAMETER", "poll_seconds"):
        jsm.call("log_monitor_heartbeat", poll_seconds=0)


# The end of a run is told ----------------------------------------------------------------------------


def test_errors_are_told_to_all_ends_to_their_own_channel_only(jsm: Sql, admin: Sql) -> None:
    for status in "EDS":
        for channel in (None, "", "  ", "#sims"):
            make_run(jsm, status, slack_channel=channel)
    assert [channel for channel, _ in told(admin, "RUN_ERROR")] == [None, None, None, "#sims"]
    assert [channel for channel, _ in told(admin, "RUN_DONE")] == ["#sims"]
    assert len(told(admin)) == 5


def test_the_end_by_the_database_is_told(jsm: Sql, admin: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 3, max_attempts=1)
    run = make_submitted(jsm, dag_id, slack_channel="#sims")
    for job_id, status in zip(jobs, "DEE", strict=True):
        make_attempt(jsm, job_id, status)
    jsm.call("end_workflow_runs")
    jsm.call("end_workflow_runs")
    ((channel, text),) = told(admin)
    assert channel == "#sims"
    assert text.startswith(f"Workflow run {run} of workflow ") and "(wf, ann)" in text
    assert "2 jobs are ERROR_FATAL" in text


def test_a_notification_shares_the_fate_of_its_change(jsm: Sql, admin: Sql, open_as: Any) -> None:
    run = make_run(jsm)
    other = open_as("jsm", autocommit=False)
    other.raw("START TRANSACTION")
    other.call("update_workflow_run", wfr_id=run, status="E")
    other.conn.rollback()
    assert told(admin) == [] and stand(admin, run)[0] == "R"


def test_raw_sql_is_told_of_too(jsm: Sql, admin: Sql) -> None:
    run = make_run(jsm)
    admin.raw("UPDATE workflow_run SET status = 'E' WHERE workflow_run_id = %s", run)
    assert len(told(admin, "RUN_ERROR")) == 1


# Failing nodes ---------------------------------------------------------------------------------------


def run_on(jsm: Sql, nodes: dict[str, str], ago: int = 100, run: int | None = None) -> int:
    """A run whose job instances ended on nodes as these letters say: ``{"n1": "DDE"}``."""
    with seconds_ago(jsm, ago):
        dag_id = make_dag(jsm)
        run = make_run(jsm, workflow_id=make_workflow(jsm, dag_id=dag_id))
        letters = [(node, letter) for node, word in nodes.items() for letter in word]
        jobs = [
            {"name": f"j{n}", "job_hash": f"{n}", "command": "true", "max_attempts": 1}
            for n in range(len(letters))
        ]
        jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)
        jsm.call("queue_jobs", dag_id=dag_id)
        claimed = jsm.call("claim_jobs", executor_type="X", dag_id=dag_id, max_jobs=1000)["job_instances"]
        events: list[dict[str, Any]] = []
        for instance, (node, letter) in zip(claimed, letters, strict=True):
            number = instance["job_instance_id"]
            events.append({"event": "running", "job_instance_id": number, "nodename": node})
            end = {"event": "done"} if letter == "D" else {"event": "error", "error_message": "boom"}
            events.append({**end, "job_instance_id": number})
        assert set(outcomes(jsm, events)) == {"OK"}
    return run


def failing(jsm: Sql, **more: Any) -> list[str]:
    """The nodes that are failing now."""
    given = {"window_seconds": 600, "min_job_instances": 4, "failure_rate": 0.5, **more}
    return [node["nodename"] for node in jsm.call("report_failing_nodes", **given)["nodes"]]


@pytest.mark.parametrize(
    ("runs", "found"),
    [
        ([{"bad": "EEEE", "good": "DDDD"}], ["bad"]),
        ([{"bad": "EEE", "good": "DDDD"}], []),  # too few
        ([{"bad": "EDDD", "good": "DDDD"}], []),  # seldom
        ([{"bad": "EEDD", "good": "DDDD"}], ["bad"]),
        ([{"bad": "EEEE", "good": "EEEE"}], []),  # the run fails everywhere
        ([{"bad": "EEEE", "good": "DE"}], []),
        ([{"only": "EEEEEEEE"}], []),  # nothing to compare it with
        ([{"bad": "EE", "good": "D"}, {"bad": "EE", "other": "DD"}], ["bad"]),  # together enough
        ([{"bad": "EEEE", "good": "D"}, {"bad": "DDDDD", "good": "D"}], []),  # of another run most succeed
        ([{"bad": "EEEE", "good": "D"}, {"bad": "EEEE", "good": "EE"}], ["bad"]),
        ([{"bad": "EEEE", "worse": "EEEEE", "good": "D" * 10}], ["bad", "worse"]),
    ],
)
def test_which_nodes_are_failing(jsm: Sql, runs: list[dict[str, str]], found: list[str]) -> None:
    for nodes in runs:
        run_on(jsm, nodes)
    assert failing(jsm) == found


def test_a_failing_node_is_told_once_an_episode(jsm: Sql, admin: Sql) -> None:
    run_on(jsm, {"bad": "EEEE", "good": "DDDD"})
    for _ in range(3):
        assert failing(jsm) == ["bad"]
    ((channel, text),) = told(admin)
    assert channel is None
    assert text.startswith("Node bad is failing: 4 of the 4 job instances")
    run_on(jsm, {"bad": "DDDDDDD", "good": "D"})
    assert failing(jsm) == ["bad"], "4 of 11: not good yet"
    assert admin.raw("SELECT num_failed, num_job_instances FROM failing_nodes") == [(4, 11)]
    run_on(jsm, {"bad": "D" * 6, "good": "D"})
    assert failing(jsm) == [], "4 of 17: over"
    assert len(told(admin)) == 1
    run_on(jsm, {"bad": "E" * 30, "good": "DDDD"})
    assert failing(jsm) == ["bad"]
    assert len(told(admin)) == 2, "a new episode"


def test_an_episode_ends_when_nothing_counts_any_more(jsm: Sql) -> None:
    run_on(jsm, {"bad": "EEEE", "good": "DDDD"}, ago=400)
    assert failing(jsm) == ["bad"]
    assert failing(jsm, window_seconds=300) == []


def test_a_rate_must_be_one(jsm: Sql) -> None:
    for rate in (0, 1.5):
        with jsm.refused("INVALID_PARAMETER", "failure_rate"):
            failing(jsm, failure_rate=rate)


# Audits ----------------------------------------------------------------------------------------------


def test_a_violation_is_told_once_until_it_is_gone(jsm: Sql, admin: Sql) -> None:
    audit = {"audit": "audit_gate"}
    assert jsm.call("log_audit", **audit, num_violations=0) == {"violated_since": None}
    since = jsm.call("log_audit", **audit, num_violations=2, sample="x" * 2000)["violated_since"]
    assert since is not None
    assert jsm.call("log_audit", **audit, num_violations=3, sample="[1]")["violated_since"] == since
    ((channel, text),) = told(admin)
    assert channel is None and "audit_gate must be empty and is not" in text
    assert admin.raw("SELECT num_violations, sample FROM audits") == [(3, "[1]")]
    assert jsm.call("log_audit", **audit, num_violations=0) == {"violated_since": None}
    jsm.call("log_audit", **audit, num_violations=1)
    assert len(told(admin)) == 2


def test_only_audits_are_logged(jsm: Sql) -> None:
    for name in ("audit_gat", "jobs", "audit%", "lock_job"):
        with jsm.refused("INVALID_PARAMETER", "audit"):
            jsm.call("log_audit", audit=name, num_violations=1)


# The outbox ------------------------------------------------------------------------------------------


def tell(jsm: Sql, *channels: str | None) -> None:
    """A notification for each."""
    for channel in channels:
        make_run(jsm, "E", slack_channel=channel)


def take(jsm: Sql, token: str | None = None, **more: Any) -> list[tuple[int, str | None]]:
    """Claim: id and channel of each."""
    given = {"claim_token": token or fresh("t"), "default_wf_slack_channel": "wf", **more}
    found = jsm.call("claim_notifications", **given)["notifications"]
    return [(one["notification_id"], one["channel"]) for one in found]


def test_each_channel_is_told_in_order(jsm: Sql) -> None:
    tell(jsm, "a", "a", None, "b", "wf", "a")
    assert take(jsm, "t") == [(1, "a"), (3, "wf"), (4, "b")]
    assert take(jsm) == [], "the heads are claimed; what is behind them waits"
    assert take(jsm, "t") == [(1, "a"), (3, "wf"), (4, "b")], "repeated after a lost answer"
    sent = {"claim_token": "t", "delivery": "SLACK"}
    assert jsm.call("log_notification", notification_id=1, **sent) == {"accepted": True}
    assert jsm.call("log_notification", notification_id=3, **sent) == {"accepted": True}
    assert take(jsm) == [(2, "a"), (5, "wf")]


def test_nodes_have_a_channel_of_their_own(jsm: Sql, admin: Sql) -> None:
    run_on(jsm, {"bad": "EEEE", "good": "DDDD"})
    failing(jsm)
    tell(jsm, None)
    assert take(jsm, default_node_slack_channel="nodes") == [(1, "nodes"), (2, "wf")]
    admin.raw("UPDATE notification SET claimed_until = NULL")
    assert take(jsm) == [(1, "wf")]
    admin.raw("UPDATE notification SET claimed_until = NULL")
    assert take(jsm, default_wf_slack_channel=None) == [(1, None)]


def test_a_refused_message_holds_up_its_channel_only(jsm: Sql, admin: Sql) -> None:
    tell(jsm, "a", "b", "a", "b")
    take(jsm, "t")
    failed = {"notification_id": 1, "claim_token": "t", "error_message": "channel_not_found", "needs_help": 1}
    assert jsm.call("log_notification", **failed) == {"accepted": True}
    assert jsm.call("log_notification", **failed) == {"accepted": False}, "repeated"
    jsm.call("log_notification", notification_id=2, claim_token="t", delivery="SLACK", message_ts="1.5")
    assert take(jsm) == [(4, "b")]
    rows = admin.raw("SELECT channel, num_pending, num_attempts, error_message FROM pending_notifications")
    assert sorted(rows) == [("a", 2, 1, "channel_not_found"), ("b", 1, 1, None)]
    assert jsm.call("retry_notifications") == {"num_notifications": 1}
    assert take(jsm) == [(1, "a")]


@pytest.mark.parametrize(
    ("outcome", "attempts", "low", "high"),
    [
        ({"retry_after_seconds": 70}, 1, 69, 70),
        ({"retry_after_seconds": 0}, 1, -5, 0),
        ({"needs_help": 1}, 5, 899, 900),
        ({}, 1, 1, 2),
        ({}, 5, 31, 32),
        ({}, 500, 599, 600),
    ],
)
def test_when_it_is_tried_again(
    jsm: Sql, admin: Sql, outcome: dict[str, int], attempts: int, low: int, high: int
) -> None:
    tell(jsm, "a")
    take(jsm, "t")
    admin.raw("UPDATE notification SET num_attempts = %s", attempts)
    jsm.call("log_notification", notification_id=1, claim_token="t", error_message="x", **outcome)
    wait = admin.one(
        "SELECT TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), next_attempt_date) / 1000000 FROM notification"
    )
    assert low - 60 <= wait <= high, "a busy machine takes its time"
    with seconds_ago(jsm, -high - 1):
        assert take(jsm) == [(1, "a")]


def test_what_slack_wants_is_not_cut_short_by_a_restart(jsm: Sql) -> None:
    tell(jsm, "a")
    take(jsm, "t")
    error = {"error_message": "ratelimited: 30 s", "retry_after_seconds": 300}
    jsm.call("log_notification", notification_id=1, claim_token="t", **error)
    assert jsm.call("retry_notifications") == {"num_notifications": 0}
    assert take(jsm) == []


def test_a_monitor_that_dies_leaves_its_claim(jsm: Sql, admin: Sql) -> None:
    tell(jsm, "a")
    assert take(jsm, "dead", lease_seconds=60) == [(1, "a")]
    with seconds_ago(jsm, -61):
        assert take(jsm, "next", lease_seconds=60) == [(1, "a")]
    assert admin.one("SELECT num_attempts FROM notification") == 2
    late = {"notification_id": 1, "claim_token": "dead"}
    assert jsm.call("log_notification", **late, error_message="x") == {"accepted": False}
    assert admin.one("SELECT claim_token FROM notification") == "next"
    # but what it has sent is sent
    assert jsm.call("log_notification", **late, delivery="SLACK") == {"accepted": True}
    with seconds_ago(jsm, -200):
        assert take(jsm) == []


def test_odd_reports_on_a_notification(jsm: Sql, admin: Sql) -> None:
    tell(jsm, "a")
    with admin.unchanged():
        with jsm.refused("INVALID_PARAMETER", "delivery"):
            jsm.call("log_notification", notification_id=1, claim_token="t", delivery="MAIL")
        with jsm.refused("MISSING_PARAMETER", "error_message"):
            jsm.call("log_notification", notification_id=1, claim_token="t")
        answer = jsm.call("log_notification", notification_id=99, claim_token="t", delivery="LOG")
        assert answer == {"accepted": False}


def test_long_texts(jsm: Sql, admin: Sql) -> None:
    tell(jsm, "a")
    admin.raw("UPDATE notification SET message = REPEAT('x', 100000)")
    (one,) = jsm.call("claim_notifications", claim_token="t")["notifications"]
    assert len(one["message"]) == 3500 and "had 100000 characters" in one["message"]
    error = "y" * 5000
    jsm.call("log_notification", notification_id=1, claim_token="t", error_message=error)
    assert len(admin.one("SELECT error_message FROM notification")) == 1000


# What people see -------------------------------------------------------------------------------------


def test_the_state_in_one_row(jsm: Sql, jqs: Sql, admin: Sql) -> None:
    def state() -> dict[str, Any]:
        with jqs.conn.cursor() as cursor:
            cursor.execute("SELECT * FROM monitor_state")
            (row,) = cursor.fetchall()
            return dict(zip([column[0] for column in cursor.description], row, strict=True))

    before = state()
    assert before.pop("seconds_since_check") is None and before.pop("max_pause_seconds") is None
    assert set(before.values()) == {0}
    watch(jsm, 50)
    tell(jsm, "a", "b")
    make_run(jsm)
    take(jsm, "t")
    jsm.call("log_notification", notification_id=1, claim_token="t", error_message="x")
    jsm.call("log_audit", audit="audit_gate", num_violations=1)
    with seconds_ago(jsm, 100):
        make_attempt(jsm, make_jobs_queued(jsm), "I", lease_seconds=10)
    now = state()
    assert now["seconds_since_check"] is not None and now["watched_seconds"] >= 50
    assert now["num_pending_notifications"] == 3 and now["num_refused_notifications"] == 1
    assert (now["num_audits"], now["num_violated_audits"]) == (1, 1)
    assert now["num_lost_leases"] == 1 and now["num_live_workflow_runs"] == 1


def make_jobs_queued(jsm: Sql) -> int:
    """A queued job."""
    dag_id, (job_id,) = make_jobs(jsm, 1)
    jsm.call("queue_jobs", dag_id=dag_id)
    return int(job_id)
