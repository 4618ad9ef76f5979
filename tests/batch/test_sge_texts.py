"""What Grid Engine's commands say, and what is made of it; on outputs that were recorded."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobmon.client.errors import JobmonError
from jobmon.executors import sge
from jobmon.executors.scheduler import (
    Output,
    Resources,
    SchedulerSilentError,
    Submission,
    SubmissionRejectedError,
)
from jobmon.executors.sge import SgeScheduler

Answer = Output | Exception | Callable[[Sequence[str]], Output]


def output(stdout: str = "", stderr: str = "", status: int = 0) -> Output:
    return Output(status, stdout, stderr)


class Commands:
    """The scheduler's commands: they say what they are told to. calls: their words, and what they read."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.calls: list[list[str]] = []
        self.stdin: list[str] = []
        self.env: list[dict[str, str]] = []

    def run(self, words: Sequence[str], *, stdin: str = "", env: Any = None, seconds: float = 0) -> Output:
        self.calls.append(list(words))
        self.stdin.append(stdin)
        self.env.append(dict(env or {}))
        answer = self.answers[words[0]]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Output) else answer(words)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    made = Commands()
    monkeypatch.setattr(sge, "run_command", made.run)
    return made


def submission(size: int = 3, command: str = "true", **resources: Any) -> Submission:
    needed = {"slots": 1, "mem_free": 1, "max_runtime": 300, **resources}
    return Submission("jobmon-0a1b2c3d-17", size, Resources(**needed), command, Path("/logs/x"))


def option(words: Sequence[str], name: str) -> str:
    return words[list(words).index(name) + 1]


# qsub ------------------------------------------------------------------------------------------


def test_a_submission(commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBMON_TOKEN", "secret")
    monkeypatch.setenv("PWD", "/somewhere/else")
    commands.answers["qsub"] = output("17.1-3:1\n")
    assert SgeScheduler().submit(submission(queue="long.q", project="malaria", flags=("-p", "-5"))) == [
        "17.1", "17.2", "17.3",
    ]  # fmt: skip
    [words] = commands.calls
    assert option(words, "-t") == "1-3"
    assert option(words, "-N") == "jobmon-0a1b2c3d-17"
    assert option(words, "-wd") == str(tmp_path)
    assert option(words, "-r") == "n"
    assert option(words, "-o") == "/logs/x/$TASK_ID.log"
    assert option(words, "-l") == "h_vmem=1152M,h_rt=300"
    assert (option(words, "-q"), option(words, "-P")) == ("long.q", "malaria")
    assert words[-2:] == ["-p", "-5"]
    assert "-pe" not in words and "-V" not in words and "-v" not in words
    assert "JOBMON_TOKEN" not in commands.env[0] and "PATH" in commands.env[0]
    assert SgeScheduler().log_file(Path("/logs/x"), 0) == Path("/logs/x/1.log")


def test_the_directory_has_the_name_that_the_user_knows(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "link")
    monkeypatch.setenv("PWD", str(tmp_path / "link"))
    commands.answers["qsub"] = output("17.1-3:1\n")
    SgeScheduler().submit(submission())
    assert option(commands.calls[0], "-wd") == str(tmp_path / "link")


def test_a_directory_that_is_gone(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("PWD", raising=False)
    here.rmdir()
    with pytest.raises(SubmissionRejectedError, match="the present directory is gone: No such file"):
        SgeScheduler().submit(submission())
    assert commands.calls == []


@pytest.mark.parametrize(
    ("options", "resources", "requests"),
    [
        ({}, {"mem_free": 2, "slots": 1}, "h_vmem=2176M,h_rt=300"),
        # each slot has its part, rounded up
        ({}, {"mem_free": 2, "slots": 3}, "h_vmem=726M,h_rt=300"),
        ({"memory_per": "job"}, {"mem_free": 2, "slots": 3}, "h_vmem=2176M,h_rt=300"),
        ({"memory": "m_mem_free, h_vmem"}, {}, "m_mem_free=1152M,h_vmem=1152M,h_rt=300"),
        ({"memory": ""}, {}, "h_rt=300"),
        ({"run_time": ""}, {}, "h_vmem=1152M"),
        ({"run_time": "h_rt,s_rt"}, {"mem_free": 0}, "h_rt=300,s_rt=300"),
        ({}, {"mem_free": 0, "max_runtime": None}, None),
    ],
)
def test_requests(
    commands: Commands, options: dict[str, str], resources: dict[str, Any], requests: str | None
) -> None:
    commands.answers["qsub"] = output("17.1-3:1\n")
    SgeScheduler(parallel_environment="smp", **options).submit(submission(**resources))
    [words] = commands.calls
    if requests is None:
        assert "-l" not in words
    else:
        assert option(words, "-l") == requests
    if resources.get("slots", 1) > 1:
        assert words[words.index("-pe") : words.index("-pe") + 3] == ["-pe", "smp", str(resources["slots"])]


@pytest.mark.parametrize("options", [{"memory_per": "node"}, {"memory": "h_vmem=3G"}, {"run_time": "a b"}])
def test_options_that_cannot_be(options: dict[str, str]) -> None:
    with pytest.raises(JobmonError, match=f"option {next(iter(options))}: expected"):
        SgeScheduler(**options)


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ({"mpi": "$round_robin", "threads": "$pe_slots"}, "threads"),
        ({"mpi": "$round_robin"}, "there is none"),
        ({"a": "$pe_slots", "b": "$pe_slots"}, "there are a, b"),
    ],
)
def test_the_parallel_environment_is_found(commands: Commands, rules: dict[str, str], found: str) -> None:
    def qconf(words: Sequence[str]) -> Output:
        if words[1] == "-spl":
            return output("\n".join(rules))
        return output(f"pe_name            {words[2]}\nslots  99\nallocation_rule    {rules[words[2]]}\n")

    commands.answers |= {"qconf": qconf, "qsub": output("17.1-3:1\n")}
    scheduler = SgeScheduler()
    if found in rules:
        scheduler.submit(submission(slots=2))
        assert option(commands.calls[-1], "-pe") == found
        commands.calls.clear()
        scheduler.submit(submission(slots=2))
        assert [words[0] for words in commands.calls] == ["qsub"]  # asked once
    else:
        with pytest.raises(SubmissionRejectedError, match=f"{found}: set the option parallel_environment"):
            scheduler.submit(submission(slots=2))


@pytest.mark.parametrize(
    ("stderr", "status", "told"),
    [
        (
            'Unable to run job: Job was rejected because job requests unknown queue "x"\nExiting.\n', 1,
            'Job was rejected because job requests unknown queue "x"',
        ),
        ('Unable to run job: job rejected: the requested project "x" does not exist\nExiting.\n', 1,
            'job rejected: the requested project "x" does not exist'),
        ("Unable to run job: error: no suitable queues\nExiting.\n", 1, "error: no suitable queues"),
        ('Unable to run job: unknown resource "communication"\nExiting.\n', 1,
            'unknown resource "communication"'),
        ('qsub: invalid option argument "--bad"\n', 2, 'qsub: invalid option argument "--bad"'),
        ("qsub: Numerical value invalid!\nThe string \"x\" contains no decimal number\n", 7,
            'qsub: Numerical value invalid!; The string "x" contains no decimal number'),
    ],
)  # fmt: skip
def test_rejected(commands: Commands, stderr: str, status: int, told: str) -> None:
    commands.answers["qsub"] = output(stderr=stderr, status=status)
    with pytest.raises(SubmissionRejectedError) as found:
        SgeScheduler().submit(submission())
    assert str(found.value) == told
    assert not found.value.full


@pytest.mark.parametrize(
    "stderr",
    [
        "Unable to run job: job rejected: Only 5 jobs are allowed per user (current job count: 5).\n",
        "Unable to run job: job rejected: only 10 jobs are allowed in the system\nExiting.\n",
    ],
)
def test_there_are_too_many_jobs(commands: Commands, stderr: str) -> None:
    commands.answers["qsub"] = output(stderr=stderr, status=1)
    with pytest.raises(SubmissionRejectedError) as found:
        SgeScheduler().submit(submission())
    assert found.value.full


@pytest.mark.parametrize(
    "answer",
    [
        output(
            stderr="error: commlib error: got select error (Connection refused)\n"
            "Unable to run job: unable to send message to qmaster using port 26844 on host"
            ' "localhost": got send error\nExiting.\n',
            status=1,
        ),
        output(stderr="Unable to run job: Error reading answer list from qmaster\nExiting.\n", status=1),
        output(stderr='error: SGE_ROOT directory "/nowhere" doesn\'t exist\n', status=1),
        output(stderr="something nobody has thought of\n", status=1),
        output(status=1),
        output("no number\n"),
        output("17.1-2:1\n"),  # of another size
        SchedulerSilentError("qsub: no answer in 60 s"),
    ],
)
def test_nobody_knows_whether_it_was_taken(commands: Commands, answer: Answer) -> None:
    commands.answers["qsub"] = answer
    with pytest.raises(SchedulerSilentError):
        SgeScheduler().submit(submission())


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("echo task $JOBMON_TASK", 0, "task 4\n"),
        ("exit 3", 3, ""),
        ("exec sh -c 'exit 99'", 1, ""),
        ("exit 100", 1, ""),
        ("exit 137", 137, ""),
        # both get it; the worker's word counts, and the signal is not one that it finds ignored
        ("kill -USR1 $$; exec sh -c 'trap \"echo got; exit 7\" USR1; kill -USR1 $$; sleep 60'", 7, "got\n"),
        ("exec sh -c 'kill -USR2 $$; sleep 60'", 140, ""),
    ],
)  # fmt: skip
def test_the_script(commands: Commands, command: str, status: int, said: str) -> None:
    commands.answers["qsub"] = output("17.1-3:1\n")
    SgeScheduler().submit(submission(command=command + "\n"))
    done = subprocess.run(
        ["/bin/bash"],
        input=commands.stdin[0],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "SGE_TASK_ID": "5"},
    )
    assert (done.returncode, done.stdout) == (status, said)


# qstat ------------------------------------------------------------------------------------------

QSTAT = """<?xml version='1.0'?>
<job_info  xmlns:xsd="http://arc.liv.ac.uk/repos/darcs/sge/source/dist/util/resources/schemas/qstat/qstat.xsd">
  <queue_info>
{running}
  </queue_info>
  <job_info>
{pending}
  </job_info>
</job_info>
"""


def job(number: int, state: str, name: str = "jobmon-0a1b2c3d-17", tasks: str = "") -> str:
    shown = f"<tasks>{tasks}</tasks>" if tasks else ""
    return f"""    <job_list state="x">
      <JB_job_number>{number}</JB_job_number>
      <JAT_prio>0.25000</JAT_prio>
      <JB_name>{name}</JB_name>
      <JB_owner>root</JB_owner>
      <state>{state}</state>
      <queue_name>all.q@localhost</queue_name>
      <slots>1</slots>
      {shown}
    </job_list>"""


def qstat(*jobs: str) -> Output:
    return output(QSTAT.format(running=jobs[0] if jobs else "", pending="\n".join(jobs[1:])))


def test_a_list(commands: Commands) -> None:
    commands.answers["qstat"] = qstat(
        job(3, "r", tasks="1"),
        job(3, "qw", tasks="2"),
        job(4, "hqw", name="jobmon-0a1b2c3d-20", tasks="4,6-9:2"),
        job(5, "r", name="somebody's own"),
        job(6, "dt", name="jobmon-99999999-1", tasks="12"),
        job(7, "Rq", name="jobmon-99999999-2"),
    )
    listed = SgeScheduler().list_tasks()
    assert [(t.executor_id, t.name, t.task, t.state) for t in listed] == [
        ("3.1", "jobmon-0a1b2c3d-17", 0, "running"),
        ("3.2", "jobmon-0a1b2c3d-17", 1, "pending"),
        ("4.4", "jobmon-0a1b2c3d-20", 3, "pending"),
        ("4.6", "jobmon-0a1b2c3d-20", 5, "pending"),
        ("4.8", "jobmon-0a1b2c3d-20", 7, "pending"),
        ("6.12", "jobmon-99999999-1", 11, "running"),
        ("7", "jobmon-99999999-2", 0, "pending"),
    ]
    assert [t.reason for t in listed if t.reason] == ["on hold (hqw)"] * 3
    assert len(commands.calls) == 1


def test_why_tasks_are_stuck_is_asked_once(commands: Commands) -> None:
    reasons = (
        "==============================================================\n"
        "job_number:                 5\n"
        "error reason          1:      11/24/2026 18:49:48 [0:10245]: error: can't chdir to /x: none\n"
        'error reason          2:      11/24/2026 18:49:49 [0:1]: can\'t open output file "/y": denied\n'
        "scheduling info:            Job is in error state\n"
    )
    listing = qstat("", job(5, "Eqw", tasks="1"), job(5, "Eqw", tasks="2"), job(6, "Eqw", tasks="1"))

    def answer(words: Sequence[str]) -> Output:
        return output(reasons) if "-j" in words else listing

    commands.answers["qstat"] = answer
    scheduler = SgeScheduler()
    for _ in range(2):
        assert [(t.executor_id, t.state, t.reason) for t in scheduler.list_tasks()] == [
            ("5.1", "stuck", "can't chdir to /x: none"),
            ("5.2", "stuck", 'can\'t open output file "/y": denied'),
            ("6.1", "stuck", "error state Eqw"),
        ]
    assert [words[1:3] for words in commands.calls if "-j" in words] == [["-j", "5,6"]]


def test_the_list_counts_even_if_reasons_do_not_come(commands: Commands) -> None:
    listing = qstat("", job(5, "Eqw", tasks="1"))

    def answer(words: Sequence[str]) -> Output:
        if "-j" in words:
            raise SchedulerSilentError("qstat: no answer in 60 s")
        return listing

    commands.answers["qstat"] = answer
    [task] = SgeScheduler().list_tasks()
    assert (task.state, task.reason) == ("stuck", "error state Eqw")


@pytest.mark.parametrize(
    "answer",
    [
        output(stderr="error: commlib error: got select error (Connection refused)\n", status=1),
        output(""),
        output("<?xml version='1.0'?>\n<job_info><job_list><JB_job_number>3</JB_job"),
        output("<job_info><job_list><JB_job_number>x</JB_job_number></job_list></job_info>"),
        qstat(job(3, "r", tasks="1 to 3")),
    ],
)
def test_lists_that_say_nothing(commands: Commands, answer: Output) -> None:
    commands.answers["qstat"] = answer
    with pytest.raises(SchedulerSilentError):
        SgeScheduler().list_tasks()


def test_an_empty_list(commands: Commands) -> None:
    commands.answers["qstat"] = qstat()
    assert SgeScheduler().list_tasks() == []


# qacct ------------------------------------------------------------------------------------------

QACCT = """==============================================================
qname        all.q
hostname     node7
group        root
owner        root
project      NONE
jobname      {name}
jobnumber    {number}
taskid       {task}
slots        {slots}
failed       {failed}
exit_status  {code}
ru_wallclock {ran}s
ru_maxrss    4.441KB
cpu          0.100s
io           447.742KB
maxvmem      {used}
arid         undefined
category     {category}
"""


def record(**fields: Any) -> str:
    known: dict[str, Any] = {
        "name": "jobmon-0a1b2c3d-17", "number": 17, "task": 3, "slots": 1, "failed": "0    ",
        "code": "0                   ", "ran": 4, "used": "4.645MB", "category": "-l h_rt=300,h_vmem=200M",
    }  # fmt: skip
    return QACCT.format(**{**known, **fields})


LIMIT = "37  : qmaster enforced h_rt, h_cpu, or h_vmem limit"
AFTER = "100 : assumedly after job"
KILLED = "137                  (Killed)"


@pytest.mark.parametrize(
    ("fields", "exceeded", "words"),
    [
        ({"code": "3                   "}, None, "exit code 3, virtual memory 5 MiB of 200 MiB, ran 4 s"),
        ({"failed": LIMIT, "code": KILLED, "ran": 301}, "max_runtime", "time limit exceeded"),
        ({"failed": LIMIT, "code": KILLED, "ran": 300, "category": "-l h_rt=0:5:0"}, "max_runtime", "300 s"),
        ({"failed": LIMIT, "code": KILLED, "used": "206.129MB"}, "mem_free", "memory limit exceeded"),
        # it was measured a moment before
        ({"failed": LIMIT, "code": KILLED, "used": "190.5MB"}, "mem_free", "190 MiB of 200 MiB"),
        # the limit is for each slot, the figure for all
        ({"failed": LIMIT, "code": KILLED, "used": "450MB", "slots": 2}, "mem_free", "450 MiB of 400 MiB"),
        ({"failed": LIMIT, "code": KILLED, "used": "250MB", "slots": 2}, None, "failed 37 (qmaster enforced"),
        # a limit of the queue, which nobody has asked for
        ({"failed": LIMIT, "code": KILLED, "ran": 9999, "category": "-q a.q"}, None, "failed 37 (qmaster"),
        ({"failed": AFTER, "code": KILLED}, None, "killed by somebody (qdel, or a signal)"),
        ({"failed": AFTER, "code": KILLED, "ran": 300}, "max_runtime", "time limit"),
        ({"failed": AFTER, "code": KILLED, "used": "201MB"}, "mem_free", "memory limit"),
        ({"failed": AFTER, "code": KILLED, "used": "190MB"}, None, "killed by somebody"),
        ({"failed": "28  : changing into working directory"}, None, "failed 28 (changing into"),
        ({"used": "0.000B"}, None, "exit code 0, ran 4 s"),
        ({"used": "undefined", "category": ""}, None, "exit code 0, ran 4 s, on node7"),
        # of version 6.2
        ({"failed": LIMIT, "code": "137", "used": "206.129M"}, "mem_free", "memory limit exceeded"),
    ],
)  # fmt: skip
def test_how_a_task_ended(
    commands: Commands, fields: dict[str, Any], exceeded: str | None, words: str
) -> None:
    commands.answers["qacct"] = output(record(**fields))
    found = SgeScheduler().ended(["17.3"])
    [ended] = found.values()
    assert list(found) == ["17.3"]
    assert (ended.name, ended.task) == ("jobmon-0a1b2c3d-17", 2)
    assert (ended.status, ended.exceeded) == ("Z" if exceeded else "E", exceeded)
    assert ended.message.startswith("Grid Engine job 17.3: ") and words in ended.message
    assert ended.usage["wallclock"] == f"{fields.get('ran', 4)}.000"
    assert ended.usage["cpu"] == "0.100"


def test_only_what_was_asked_for_and_the_newest_of_it(commands: Commands) -> None:
    """Numbers are used again; a task that was begun again has a record of each time."""
    text = (
        record(name="old", code="1") + record(task=4) + record(code="2") + record(number=18)
        + record(task=5, failed="25  : rescheduling")
    )  # fmt: skip
    commands.answers["qacct"] = output(text)
    found = SgeScheduler().ended(["17.3", "17.5", "17.6"])
    assert list(found) == ["17.3"]
    assert (found["17.3"].name, "exit code 2" in found["17.3"].message) == ("jobmon-0a1b2c3d-17", True)
    assert commands.calls == [["qacct", "-j", "17"]]


def test_no_record_yet(commands: Commands) -> None:
    def qacct(words: Sequence[str]) -> Output:
        if words[2] == "18":
            return output(record(number=18, task="undefined"))
        return output(stderr=f"error: job id {words[2]} not found\n", status=1)

    commands.answers["qacct"] = qacct
    found = SgeScheduler().ended(["17.3", "18"])
    assert {executor_id: ended.task for executor_id, ended in found.items()} == {"18": 0}


def test_the_accounting_is_away(commands: Commands) -> None:
    def qacct(words: Sequence[str]) -> Output:
        if words[2] == "17":
            return output(record())
        return output(stderr="error: can't open accounting file\n", status=1)

    commands.answers["qacct"] = qacct
    with pytest.raises(SchedulerSilentError) as silent:
        SgeScheduler().ended(["17.3", "18.1"])
    assert list(silent.value.ended) == ["17.3"]


def test_many_are_looked_up_at_once(commands: Commands) -> None:
    commands.answers["qacct"] = output("".join(record(number=number) for number in range(1, 1000)))
    wanted = [f"{number}.3" for number in range(100, 200)]
    assert sorted(SgeScheduler().ended(wanted)) == sorted(wanted)
    [words] = commands.calls
    assert words[-1] == "-j" and "-o" in words


# qdel ------------------------------------------------------------------------------------------


def test_cancel(commands: Commands) -> None:
    commands.answers["qdel"] = output("root has deleted job-array task 3.1\n")
    SgeScheduler().cancel(["3.7", "3.1", "3.2", "3.3", "12", "4.9", "3.8"])
    assert commands.calls == [["qdel", "12", "3.1-3:1", "3.7-8:1", "4.9"]]
    commands.calls.clear()
    SgeScheduler().cancel([])
    assert commands.calls == []
    SgeScheduler().cancel([f"3.{2 * n}" for n in range(1, 501)])
    assert [len(words) - 1 for words in commands.calls] == [200, 200, 100]


def test_cancel_what_is_over(commands: Commands) -> None:
    text = (
        'denied: job "6" does not exist\nroot has registered the job-array task 25.2 for deletion\n'
        "job 7 is already in deletion\n"
    )
    commands.answers["qdel"] = output(text, status=1)
    SgeScheduler().cancel(["6.1", "7.1", "25.2"])


@pytest.mark.parametrize(
    "text",
    [
        "error: commlib error: got select error (Connection refused)\nerror: unable to send message\n",
        'denied: "eve" is not the owner of job 6\n',
    ],
)  # fmt: skip
def test_cancel_is_not_answered(commands: Commands, text: str) -> None:
    commands.answers["qdel"] = output(stderr=text, status=1)
    with pytest.raises(SchedulerSilentError):
        SgeScheduler().cancel(["6.1"])


def test_the_commands_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobmonError, match="commands are not here: qsub, qstat, qacct, qdel"):
        SgeScheduler().check()
    for name in sge.COMMANDS:
        (tmp_path / name).touch(mode=0o755)
    SgeScheduler().check()
