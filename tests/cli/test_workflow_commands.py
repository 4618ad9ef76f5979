"""``jobmon workflow``: what is printed, what is changed, and how it exits."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import Jobmon, MakeWorkflow, lines_of
from click.testing import CliRunner
from waiting import until

from jobmon.cli import main
from jobmon.cli.workflow import STALE_AFTER_SECONDS
from jobmon.client import workflow as client_workflow
from jobmon.client.errors import ServiceUnavailable
from jobmon.client.requester import Requester

# ----------------------------------------------------------------------------------------------------------
# list


def test_list_the_newest_first(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = [make(name=f"wf{number}") for number in range(4)]
    newest = [workflow.workflow_id for workflow in reversed(made)]
    assert jobmon.ids("workflow", "list") == newest
    assert jobmon.ids("workflow", "list", "--limit", 2) == newest[:2]
    rows = jobmon.services.requester.get_rows("workflows")
    assert jobmon.json("workflow", "list") == rows[::-1]
    output = jobmon("workflow", "list").output
    heading, *lines = output.splitlines()
    assert heading.split()[:4] == ["id", "name", "user", "status"]
    assert [line.split()[:4] for line in lines] == [
        [str(number), f"wf{number - 1}", "ann", "CREATED"] for number in newest
    ]


def test_list_filters(jobmon: Jobmon, make: MakeWorkflow) -> None:
    first, second, third = make(name="a"), make(name="b", user="bob"), make(name="b")
    second.start_run()
    assert jobmon.ids("workflow", "list", "--user", "bob") == [second.workflow_id]
    assert jobmon.ids("workflow", "list", "--name", "b") == [third.workflow_id, second.workflow_id]
    assert jobmon.ids("workflow", "list", "--name", "b", "--user", "ann") == [third.workflow_id]
    for status in ("RUNNING", "running", "R"):
        assert jobmon.ids("workflow", "list", "--status", status) == [second.workflow_id]
    assert jobmon.ids("workflow", "list", "--status", "CREATED") == [third.workflow_id, first.workflow_id]
    assert jobmon.json("workflow", "list", "--status", "DONE") == []
    assert "no such workflows" in jobmon("workflow", "list", "--status", "DONE").output
    refused = jobmon("workflow", "list", "--status", "RUNING", code=2).output
    assert "'RUNING' is no status of a workflow" in refused and "STOPPED" in refused


# ----------------------------------------------------------------------------------------------------------
# status


def test_status_through_a_life(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(3, [(0, 2)])
    show = ("workflow", "status", made.workflow_id)
    output = jobmon(*show).output
    assert "CREATED" in output and "never been run" in output
    jobmon(*show, "--exit-code", code=4)
    made.start_run()
    made.claim(1)
    output = jobmon(*show).output
    assert re.search(r"Run \d+: RUNNING, by ann, for .* s, heartbeat .* s ago", output)
    assert re.search(r"^INSTANTIATED +1$", output, re.MULTILINE)
    assert re.search(r"^QUEUED_FOR_INSTANTIATION +1$", output, re.MULTILINE)
    jobmon(*show, "--exit-code", code=4)
    document = jobmon.json(*show)
    assert document["workflow"] == jobmon.services.requester.get_rows("workflows")[0] | {
        key: document["workflow"][key] for key in ("num_jobs",)
    }
    assert document["workflow_run"]["workflow_run_id"] == made.workflow_run_id
    assert {row["status"]: row["num_jobs"] for row in document["job_status_counts"]} == {
        "INSTANTIATED": 1,
        "QUEUED_FOR_INSTANTIATION": 1,
        "REGISTERED": 1,
    }
    assert jobmon(*show, "-o", "quiet").output == ""


def test_status_of_the_ended(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(7)
    made.start_run(executor_class="LocalExecutor")
    made.work("exit code 3\nfirst\nthe last line")
    assert made.end_run() == "E"
    show = ("workflow", "status", made.workflow_id)
    output = jobmon(*show, "--exit-code", code=1).output
    assert re.search(r"Run \d+: ERROR, by ann on login1, process 4711, for .*, ended 20", output)
    assert "exit code 3: the last line" in output and "node7" in output
    assert f"... and 2 more: `jobmon workflow errors {made.workflow_id}`" in output
    jobmon(*show)
    done = make(1)
    done.start_run()
    done.work()
    assert done.end_run() == "D"
    jobmon("workflow", "status", done.workflow_id, "--exit-code")


@pytest.mark.parametrize(
    "command",
    [
        ["workflow", "status"],
        ["workflow", "jobs"],
        ["workflow", "errors"],
        ["workflow", "stop", "--yes"],
        ["workflow", "resume"],
        ["workflow", "concurrency"],
        ["workflow", "graph"],
        ["job", "show"],
        ["job", "explain"],
        ["job", "log"],
        ["job", "retry"],
        ["job", "kill", "--yes"],
    ],
    ids=" ".join,
)
def test_ids(jobmon: Jobmon, command: list[str]) -> None:
    what = command[0]
    for form in ("table", "json", "quiet"):
        output = jobmon(*command, 4711, "-o", form, code=3).output
        assert f"no {what} 4711" in output and "Hint: " in output
    for wrong in ("0", "-1", "abc", "1.5", "1e3", "99999999999999999999", "9" * 5000, "\u0663"):
        assert "Error" in jobmon(*command, wrong, code=2).output
    assert f"no {what} {2**64 - 1}" in jobmon(*command, 2**64 - 1, code=3).output


def test_setting_a_limit_of_an_unknown_workflow(jobmon: Jobmon) -> None:
    assert "UNKNOWN_WORKFLOW" in jobmon("workflow", "concurrency", 4711, 3, code=3).output


# ----------------------------------------------------------------------------------------------------------
# jobs and errors


def test_jobs(jobmon: Jobmon, make: MakeWorkflow) -> None:
    other = make(2)
    made = make(5, [(0, 4)], tag="t")
    made.start_run()
    claimed = made.claim(2)
    show = ("workflow", "jobs", made.workflow_id)
    assert jobmon.ids(*show) == made.job_ids
    assert jobmon.ids("workflow", "jobs", other.workflow_id) == other.job_ids
    for status in ("INSTANTIATED", "instantiated", "I"):
        assert jobmon.ids(*show, "--status", status) == list(claimed)
    assert jobmon.ids(*show, "--name", "job3") == [made.job_ids[3]]
    assert jobmon.ids(*show, "--tag", "t", "--limit", 2) == made.job_ids[:2]
    assert jobmon.ids(*show, "--tag", "u") == []
    rows = jobmon.json(*show)
    assert [row["job_id"] for row in rows] == made.job_ids
    assert rows[4]["status"] == "REGISTERED" and rows[4]["upstreams_pending"] == 1
    assert "These are the first 2" in jobmon(*show, "--limit", 2).output
    assert "These are" not in jobmon(*show, "--limit", 5).output
    assert "no status of a job" in jobmon(*show, "--status", "CREATED", code=2).output


def test_errors(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(3, max_attempts=2)
    made.start_run()
    made.work("first\n\nwhy")
    made.work("second", max_jobs=1)
    show = ("workflow", "errors", made.workflow_id)
    rows = jobmon.json(*show)
    assert [row["description"] for row in rows] == ["first\n\nwhy"] * 3 + ["second"]
    assert [row["description"] for row in jobmon.json(*show, "--limit", 2)] == ["first\n\nwhy", "second"]
    assert [row["attempt_number"] for row in jobmon.json(*show, "--name", "job0")] == [1, 2]
    # each job once, for `xargs jobmon job retry`
    assert jobmon.ids(*show) == made.job_ids
    lines = jobmon(*show).output.splitlines()
    assert len(lines) == 5 and lines[1].endswith("first: why")
    assert "no errors" in jobmon("workflow", "errors", make().workflow_id).output


# ----------------------------------------------------------------------------------------------------------
# stop, resume, concurrency


def test_stop(jobmon: Jobmon, make: MakeWorkflow, db: Any) -> None:
    made = make(3)
    run = made.start_run()
    made.report([(number, "running") for number in made.claim(2).values()])
    stop = ("workflow", "stop", made.workflow_id)
    assert "say --yes" in jobmon(*stop, code=1).output
    assert jobmon.json("workflow", "status", made.workflow_id)["workflow"]["status"] == "RUNNING"
    output = jobmon(*stop, "--yes").output
    assert f"Workflow {made.workflow_id} is STOPPED, and so is its run {run}." in output
    jobmon("workflow", "status", made.workflow_id, "--exit-code", code=4)
    assert made.claim() == {}
    assert jobmon.json(*stop, "--kill", "--yes") == {"workflow_run_id": None, "num_killed": 2}
    assert "0 job instances were killed" in jobmon(*stop, "--kill", "--yes").output
    errors = jobmon.json("workflow", "errors", made.workflow_id)
    assert {row["description"] for row in errors} == {f"Killed: workflow {made.workflow_id} was stopped"}
    assert jobmon(*stop, "--yes", "-o", "quiet").output == ""
    assert db.audits() == {}


def test_stop_asks_at_a_terminal(jobmon: Jobmon, make: MakeWorkflow, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(name="burden")
    made.start_run()
    monkeypatch.setattr("jobmon.cli.output._is_terminal", lambda stream: stream.readable())
    question = f"Stop workflow {made.workflow_id} 'burden' of ann and kill its jobs that run?"
    for answer, status in (("n\n", "RUNNING"), ("y\n", "STOPPED")):
        command = ["--config", str(jobmon.services.rc), "workflow", "stop", str(made.workflow_id), "--kill"]
        result = CliRunner().invoke(main, [*command, "-o", "json"], input=answer)
        assert question in result.stderr
        assert result.exit_code == (0 if answer == "y\n" else 1)
        [row] = jobmon.services.requester.get_rows("workflows")
        assert row["status"] == status
    # the question is not part of the document
    assert json.loads(result.stdout)["num_killed"] == 0


def test_a_done_workflow_is_neither_stopped_nor_resumed(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make()
    made.start_run()
    made.work()
    assert made.end_run() == "D"
    output = jobmon("workflow", "stop", made.workflow_id, "--yes", code=1).output
    assert "ILLEGAL_TRANSITION" in output and "Hint:" in output
    assert "is DONE: there is nothing to resume" in jobmon("workflow", "resume", made.workflow_id).output
    assert jobmon.json("workflow", "resume", made.workflow_id) == {"workflow_run_id": None}
    assert jobmon.ids("workflow", "resume", made.workflow_id) == []


def test_resume(jobmon: Jobmon, make: MakeWorkflow, db: Any) -> None:
    made = make(3, [(1, 2)])
    places = {"stdout": "/o", "stderr": "/e", "working_dir": "/w", "project": "p", "slack_channel": "#c"}
    first = made.start_run(executor_class="LocalExecutor", **places)
    made.work(max_jobs=1)
    made.work("failed")
    resume = ("workflow", "resume", made.workflow_id)
    refused = jobmon(*resume, code=1).output
    assert "WORKFLOW_RUN_ALIVE" in refused and "login1" in refused and "Hint:" in refused
    document = jobmon.json(*resume, "--stale-after", 0)
    assert document == {"workflow_run_id": first + 1, "num_queued": 1}
    old, new = jobmon.services.requester.get_rows("workflow_runs", workflow_id=made.workflow_id)
    assert old["status"] == "STOPPED" and new["status"] == "RUNNING" and new["submitted_date"]
    assert {key: new[key] for key in places} == places
    # no process of ours works on it
    assert new["executor_class"] is None
    assert [row["status"] for row in jobmon.json("workflow", "jobs", made.workflow_id)] == [
        "DONE",
        "QUEUED_FOR_INSTANTIATION",
        "REGISTERED",
    ]
    jobmon("workflow", "stop", made.workflow_id, "--yes")
    output = jobmon(*resume).output
    assert f"resumed by run {first + 2}: 1 jobs are queued" in output and "jobmon start distributor" in output
    jobmon("workflow", "stop", made.workflow_id, "--yes")
    assert jobmon.ids(*resume) == [first + 3]
    assert db.audits() == {}


def test_resume_what_was_never_run(
    jobmon: Jobmon, make: MakeWorkflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(2)
    monkeypatch.chdir(tmp_path)
    assert jobmon.json("workflow", "resume", made.workflow_id)["num_queued"] == 2
    [run] = jobmon.services.requester.get_rows("workflow_runs")
    assert run["working_dir"] == str(tmp_path)


def test_what_is_taken_for_dead_is_the_same_for_programs_and_people() -> None:
    assert STALE_AFTER_SECONDS == client_workflow.STALE_AFTER_SECONDS


def test_resume_that_fails_half_way_can_be_repeated(
    jobmon: Jobmon, make: MakeWorkflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(2)
    resume = ("workflow", "resume", made.workflow_id)
    post = Requester.post

    def fails(self: Requester, route: str, **body: Any) -> Any:
        if route == "submit_workflow_run":
            raise ServiceUnavailable("JSM is away", "Is it running?")
        return post(self, route, **body)

    with monkeypatch.context() as patch:
        patch.setattr(Requester, "post", fails)
        output = jobmon(*resume, code=1).output
    assert "was made, but its jobs are not queued: JSM is away" in output
    assert f"`jobmon workflow resume {made.workflow_id} --stale-after 0`" in output
    jobmon(*resume, code=1)
    jobmon(*resume, "--stale-after", 0)
    assert len(made.claim()) == 2

    def superseded(self: Requester, route: str, **body: Any) -> Any:
        if route == "submit_workflow_run":
            made.start_run(submit=False)
        return post(self, route, **body)

    with monkeypatch.context() as patch:
        patch.setattr(Requester, "post", superseded)
        output = jobmon(*resume, "--stale-after", 0, code=1).output
    assert "stopped or superseded while it was made" in output


def test_concurrency(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(5)
    limit = ("workflow", "concurrency", made.workflow_id)
    assert "no limit of jobs at a time" in jobmon(*limit).output
    assert "at most 2 jobs at a time" in jobmon(*limit, 2).output
    assert jobmon.json(*limit) == {"workflow_id": made.workflow_id, "max_concurrently_running": 2}
    made.start_run()
    assert len(made.claim()) == 2
    assert jobmon.json(*limit, "none") == {"workflow_id": made.workflow_id, "max_concurrently_running": None}
    assert len(made.claim()) == 3
    assert "at most 0 jobs" in jobmon(*limit, 0).output
    for wrong in ("-1", "many", "1.5", "99999999999"):
        assert "Error" in jobmon(*limit, wrong, code=2).output


# ----------------------------------------------------------------------------------------------------------
# graph


def test_graph_as_text(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(6, [(0, 2), (1, 2), (0, 3), (2, 4)])
    made.start_run()
    a, b, c, d, e, f = made.job_ids
    assert jobmon("workflow", "graph", made.workflow_id).output.splitlines() == [
        "level 0: 3 jobs (3 QUEUED_FOR_INSTANTIATION)",
        f"  {a} job0 QUEUED_FOR_INSTANTIATION",
        f"  {b} job1 QUEUED_FOR_INSTANTIATION",
        f"  {f} job5 QUEUED_FOR_INSTANTIATION",
        "level 1: 2 jobs (2 REGISTERED)",
        f"  {c} job2 REGISTERED after {a}, {b}",
        f"  {d} job3 REGISTERED after {a}",
        "level 2: 1 jobs (1 REGISTERED)",
        f"  {e} job4 REGISTERED after {c}",
    ]
    output = jobmon("workflow", "graph", made.workflow_id, "--limit", 1).output
    assert "  ... and 2 more\n" in output and "job5" not in output
    assert jobmon.ids("workflow", "graph", made.workflow_id) == made.job_ids


AWKWARD = ['say "hi"', "back\\slash", "two\nlines", "[red]a|b<c>{d};", "\u00fcmlaut \x1b[31m"]


def test_graph_for_graphviz(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(5, [(0, 1), (1, 2), (0, 4)], names=AWKWARD, name='the "graph"')
    output = jobmon("workflow", "graph", made.workflow_id, "-o", "dot").output
    assert output.startswith('digraph "the \\"graph\\"" {\n') and output.endswith("}\n")
    drawn = {(int(a), int(b)) for a, b in re.findall(r"^  (\d+) -> (\d+);$", output, re.MULTILINE)}
    ids = made.job_ids
    assert drawn == {(ids[0], ids[1]), (ids[1], ids[2]), (ids[0], ids[4])}
    nodes = re.findall(r'^  (\d+) \[label="((?:[^"\\\n]|\\.)*)"\];$', output, re.MULTILINE)
    assert [int(number) for number, _ in nodes] == ids
    assert nodes[0][1] == f'say \\"hi\\"\\n{ids[0]} REGISTERED'
    assert nodes[1][1].startswith("back\\\\slash\\n")
    assert "\x1b" not in output


def test_graph_for_mermaid(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(5, [(0, 1), (1, 2), (0, 4)], names=AWKWARD)
    made.start_run()
    output = jobmon("workflow", "graph", made.workflow_id, "-o", "mermaid").output
    ids = made.job_ids
    assert output.startswith("flowchart LR\n")
    drawn = {(int(a), int(b)) for a, b in re.findall(r"^  j(\d+) --> j(\d+)$", output, re.MULTILINE)}
    assert drawn == {(ids[0], ids[1]), (ids[1], ids[2]), (ids[0], ids[4])}
    assert f'j{ids[0]}["say #34;hi#34;<br>{ids[0]} QUEUED_FOR_INSTANTIATION"]:::QUEUED' in output
    assert "#91;red#93;a#124;b#60;c#62;#123;d#125;#59;" in output and "\x1b" not in output
    assert "classDef QUEUED_FOR_INSTANTIATION fill:" in output


def test_graph_of_ten_thousand_jobs(jobmon: Jobmon, make: MakeWorkflow) -> None:
    width = 2000
    edges = [(number, number + width) for number in range(8000)]
    edges += [(number, 2000 + (number * 7) % width) for number in range(width)]
    made = make(10_000, edges)
    lines = jobmon("workflow", "graph", made.workflow_id).output.splitlines()
    levels = [line for line in lines if line.startswith("level")]
    assert levels == [f"level {number}: 2000 jobs (2000 REGISTERED)" for number in range(5)]
    assert len(lines) == 5 * 22
    dot = jobmon("workflow", "graph", made.workflow_id, "-o", "dot").output
    num_edges = len(set(edges))
    assert dot.count(" -> ") == num_edges
    result = jobmon("workflow", "graph", made.workflow_id, "-o", "mermaid")
    assert f"Note: {num_edges} edges; Mermaid draws 500" in result.stderr
    document = jobmon.json("workflow", "graph", made.workflow_id)
    assert [job["job_id"] for job in document["jobs"]] == made.job_ids
    pairs = [(edge["upstream_job_id"], edge["downstream_job_id"]) for edge in document["edges"]]
    assert pairs == sorted((made.job_ids[a], made.job_ids[b]) for a, b in set(edges))


# ----------------------------------------------------------------------------------------------------------
# --watch, as processes


def test_watch_until_the_workflow_has_ended(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(2)
    made.start_run()
    command = ("workflow", "status", made.workflow_id, "--watch", "0.2", "-o", "json", "--exit-code")
    process = jobmon.start(*command)
    seen = []
    for text in lines_of(process):
        seen.append(json.loads(text)["workflow"]["status"])
        if len(seen) == 2:
            made.work()
            assert made.end_run() == "D"
    assert process.wait(60) == 0
    assert seen[:2] == ["RUNNING", "RUNNING"] and seen[-1] == "DONE"


def test_watch_until_ctrl_c(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(2)
    made.start_run()
    commands: list[tuple[object, ...]] = [
        ("workflow", "list", "--watch", "0.2", "-o", "quiet"),
        ("workflow", "jobs", made.workflow_id, "--watch=0.2"),
        ("workflow", "errors", made.workflow_id, "--watch"),
        ("job", "explain", made.job_ids[0], "--watch", "0.2"),
    ]
    for command in commands:
        process = jobmon.start(*command)
        first = next(lines_of(process))
        assert first
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        assert stderr == ""


def test_watch_comes_after_the_id(jobmon: Jobmon) -> None:
    assert "WORKFLOW_ID" in jobmon("workflow", "status", "--watch", 5, code=2).output
    assert "Error" in jobmon("workflow", "list", "--watch", 0, code=2).output


def test_a_reader_that_goes_away(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(3000)
    process = jobmon.start("workflow", "jobs", made.workflow_id, "-o", "json", "--limit", 3000)
    assert next(lines_of(process)) == "["
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    until(lambda: process.poll() is not None, "the end of the process")
