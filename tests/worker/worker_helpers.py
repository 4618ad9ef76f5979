"""Workers as processes, and a JSM of the tests' own that answers as it is told."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ports import free_port
from waiting import until

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds; for what takes a moment, on a machine that is busy

FINAL_REPORTS = ("log_done", "log_error", "log_warning")

# (status, document), or bytes to be sent as they are
Answer = tuple[int, Any] | bytes


def refusal(code: str, status: int = 409) -> Answer:
    """An error as JSM answers it."""
    return status, {"error": {"code": code, "message": f"{code}: no", "hint": "Stop."}}


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


class FakeJsm:
    """Answers workers' calls, and keeps them.

    answers: by route, a list of answers that are given in turn (the last one for ever), or a function from
    the body to the answer. calls: (route, body) in the order in which they came.
    """

    def __init__(self, **instance: Any) -> None:
        self.instance: dict[str, Any] = {
            "job_instance_id": 7,
            "job_id": 5,
            "dag_id": 3,
            "workflow_run_id": 2,
            "attempt_number": 1,
            "name": "job",
            "command": "true",
            "max_runtime": None,
            "working_dir": None,
            "stdout": None,
            "stderr": None,
            **instance,
        }
        self.answers: dict[str, list[Answer] | Callable[[dict[str, Any]], Answer]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self._server: ThreadingHTTPServer | None = None
        self.port = free_port()

    def start(self) -> None:
        """Listen."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = fake.answer(self.path[1:], body, dict(self.headers))
                with contextlib.suppress(OSError):
                    if isinstance(answer, bytes):
                        self.wfile.write(answer)
                        return
                    data = json.dumps(answer[1]).encode()
                    self.send_response(answer[0])
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False  # a call that hangs does not hold up the end of a test

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, route: str, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        """What a call is answered."""
        earlier = len(self.of(route))
        self.calls.append((route, body))
        self.headers.append(headers)
        given = self.answers.get(route)
        if callable(given):
            return given(body)
        if given:
            return given[min(earlier, len(given) - 1)]
        if route == "start_job_instance":
            return 200, {"job_instance": self.instance}
        return 200, {"message": ""} if route in FINAL_REPORTS else {}

    def of(self, route: str) -> list[dict[str, Any]]:
        """The bodies of the calls of one route."""
        return [body for called, body in self.calls if called == route]

    @property
    def group(self) -> int:
        """The process group that the worker reported; waits for the report."""
        return int(until(lambda: self.of("start_job_instance"))[0]["process_group_id"])

    @property
    def end(self) -> dict[str, Any]:
        """The one final report; its ``event`` is done, error or warning."""
        [(route, body)] = [call for call in self.calls if call[0] in FINAL_REPORTS]
        return {"event": route.removeprefix("log_"), **body}


def kill_commands(port: int) -> None:
    """Kill what a failed test has left: processes whose JSM was at this port."""
    mark = f"JOBMON_JSM=127.0.0.1:{port}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)


def program_once(directory: Path, wait_for: Path, text: str = "") -> dict[str, list[str]]:
    """A worker that watches its command, and so the time, only once a file is there and has a text: however
    slow the machine is, the command has come so far when its time is over.
    """
    program = directory / "once.py"
    program.write_text(
        "import pathlib, sys, time\nfrom jobmon.worker import main\n"
        f"file, text = pathlib.Path({str(wait_for)!r}), {text!r}\n"
        "watch = main.Worker._watch\n"
        "def later(self):\n"
        f"    end = time.monotonic() + {PATIENCE}\n"
        "    while time.monotonic() < end and not (file.exists() and text in file.read_text()):\n"
        "        time.sleep(0.02)\n"
        "    return watch(self)\n"
        "main.Worker._watch = later\n"
        "sys.exit(main.main(sys.argv[1:]))\n"
    )
    return {"program": [str(program)]}


class Worker:
    """A worker's process."""

    def __init__(self, arguments: list[str], env: dict[str, str], directory: Path, **kw: Any) -> None:
        program = kw.pop("program", ["-m", "jobmon.worker"])
        self.log = directory / "worker.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                env=env,
                cwd=directory,
                **{
                    "stdin": subprocess.DEVNULL,
                    "stdout": log,
                    "stderr": log,
                    "start_new_session": True,
                    **kw,
                },
            )
        self.pid = self.process.pid

    def wait(self, seconds: float = PATIENCE) -> int:
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker does not end:\n{self.log.read_text()}") from None

    def signal(self, number: int) -> None:
        """Send a signal to the worker, not to its command."""
        self.process.send_signal(number)

    def end(self) -> None:
        """Kill it, if it runs; its guard ends the command then."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def clean_environment(directory: Path, **more: str) -> dict[str, str]:
    """An environment without anything of the user's settings and of a scheduler's."""
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("JOBMON_", "SLURM_", "SGE_")) and key != "JOB_ID"
    }
    path = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH", "")]))
    return {**env, "HOME": str(directory), "PYTHONPATH": path, **more}
