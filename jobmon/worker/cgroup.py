"""Whether the kernel has killed for memory: the count of a control group's OOM kills.

Source: the kernel's Documentation/admin-guide, cgroup-v2.rst (memory.events) and cgroup-v1/memory.rst
(memory.oom_control). A kill is counted in the victim's own group, wherever the limit is set.
"""

from __future__ import annotations

import os

ROOT = "/"  # tests have another


class OomKills:
    """The count in the group that this process, and so the command that it forks, is in.

    Parameters:
        slurm_job_id: ``$SLURM_JOB_ID``, which is in the name of a group that is this job's alone.

    Attributes:
        of_this_job: the group is this job's alone; else other jobs of the node may be in it.
    """

    def __init__(self, slurm_job_id: str | None = None) -> None:
        self.of_this_job = False
        self._path: str | None = None
        for path, file in _candidates():
            self._path = file
            if self._count() is not None:
                self.of_this_job = bool(slurm_job_id) and f"job_{slurm_job_id}" in path.split("/")
                break
        else:
            self._path = None
        self._before = self._count()

    def rose(self) -> bool:
        """Whether there was one since this object was made; False if nobody counts."""
        now = self._count()
        return now is not None and self._before is not None and now > self._before

    def _count(self) -> int | None:
        for line in _read(self._path).splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill" and number.isdigit():
                return int(number)
        return None


def _candidates() -> list[tuple[str, str]]:
    """Names of groups, and files that may count their kills: in a container the group is all that is seen."""
    found = []
    for line in _read(os.path.join(ROOT, "proc/self/cgroup")).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "":
            mount, name = "sys/fs/cgroup", "memory.events"
        elif "memory" in controllers.split(","):
            mount, name = "sys/fs/cgroup/memory", "memory.oom_control"
        else:
            continue
        for group in (path.strip("/"), ""):
            found.append((path, os.path.join(ROOT, mount, group, name)))
    return found


def _read(path: str | None) -> str:
    if path is None:
        return ""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
