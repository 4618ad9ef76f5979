"""Make Jobmon's virtual environment and run a module in it. Standard library only: it runs before anything
is installed.

`./runserver.py` and `./runtests.py` call `run_script`. It creates the environment on the first run,
installs the project (editable, with the extras asked for) whenever pyproject.toml or the place
of the clone changed, and then replaces the process by the environment's Python. A run that finds everything
current costs some milliseconds.

The environment is `.venv` in the clone. If the clone belongs to someone else, it is a directory of the
user's own in Jobmon's state directory; the variable JOBMON_VENV names another one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from jobmon.config import state_dir  # standard library only, too

STAMP = "jobmon-stamp.json"
# Written before an environment is filled: what carries it without a stamp was interrupted, is ours, and may
# be remade.
STARTED = "jobmon-started"
# These would make pip install elsewhere, or Python import something else, than meant here.
FOREIGN_VARIABLES = frozenset(
    ["PYTHONHOME", "PYTHONPATH", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "VIRTUAL_ENV"]
)
QUIETLY = ("-q", "--no-input", "--disable-pip-version-check")

INDEX_HINT = "Is the package index reachable (pypi.org or a mirror)? pip reads PIP_INDEX_URL and pip.conf."

Log = Callable[[str], None]


class BootstrapError(Exception):
    """The environment can't be made.

    Args:
        message: what went wrong.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def log_to_stderr(line: str) -> None:
    """Tell the person in front of the terminal what is being done."""
    print(line, file=sys.stderr, flush=True)


def environment_dir(repo: Path) -> Path:
    """The directory of the virtual environment that serves the clone `repo`."""
    own = os.environ.get("JOBMON_VENV")
    if own:
        return Path(own).expanduser().absolute()
    inside = repo / ".venv"
    if os.access(inside if inside.exists() else repo, os.W_OK):
        return inside
    # Someone else's clone: their environment serves us as it is, as long as nothing is to be installed into
    # it.
    place = hashlib.sha256(str(repo).encode()).hexdigest()[:12]
    return state_dir() / "venvs" / place


def environment_python(directory: Path) -> Path:
    """The Python of the environment in `directory`."""
    return directory / "bin" / "python"


def fingerprint(repo: Path) -> str:
    """Checksum of all that an installation depends on: pyproject.toml and the place of the clone.

    Not the Python that runs this: an environment keeps the one it was made by, as long as that is there.
    """
    return hashlib.sha256((repo / "pyproject.toml").read_bytes() + os.fsencode(repo)).hexdigest()


def read_stamp(directory: Path) -> dict[str, object]:
    """What was installed into the environment in `directory`; empty if that is not known."""
    try:
        stamp = json.loads((directory / STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def installed_extras(directory: Path) -> set[str]:
    """The extras of the project that the environment in `directory` holds."""
    extras = read_stamp(directory).get("extras")
    return {str(extra) for extra in extras} if isinstance(extras, list) else set()


def is_current(repo: Path, directory: Path, extras: Iterable[str] = ()) -> bool:
    """Whether the environment in `directory` holds the project as it is now, with `extras`."""
    return (
        os.access(environment_python(directory), os.X_OK)
        and read_stamp(directory).get("fingerprint") == fingerprint(repo)
        and set(extras) <= installed_extras(directory)
    )


def write_stamp(repo: Path, directory: Path, extras: Iterable[str]) -> None:
    """Record that the environment is complete.

    Written last and at once, so that it never stands for half a job.
    """
    text = json.dumps(
        {"fingerprint": fingerprint(repo), "extras": sorted(extras), "repo": str(repo)}, indent=1
    )
    partial = directory / f"{STAMP}.{os.getpid()}"
    partial.write_text(text + "\n")
    partial.replace(directory / STAMP)


@contextlib.contextmanager
def locked(path: Path, log: Log, busy: str) -> Iterator[None]:
    """Hold the lock file `path`; if another process holds it, say `busy` and wait."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(busy)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def clean_environ() -> dict[str, str]:
    """This process's environment without what would divert pip or Python."""
    return {key: value for key, value in os.environ.items() if key not in FOREIGN_VARIABLES}


def run(command: Sequence[str | Path], *, fail: str, hint: str, env: dict[str, str] | None = None) -> None:
    """Run a command quietly; on failure raise BootstrapError with the end of its output.

    Args:
        command: program and arguments.
        fail: the error's message if it fails.
        hint: the error's hint.
        env: its environment; default: `clean_environ()`.
    """
    try:
        done = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=env or clean_environ(),
        )
    except OSError as error:
        raise BootstrapError(f"{fail}: {command[0]}: {error.strerror}", hint) from error
    if done.returncode:
        tail = "\n".join("    " + line for line in done.stdout.strip().splitlines()[-15:])
        raise BootstrapError(f"{fail}:\n{tail}" if tail else f"{fail} (exit code {done.returncode})", hint)


def have(module: str) -> bool:
    """Whether this Python can import `module`."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None  # None: a directory of that name without the module


def works(command: Sequence[str | Path]) -> bool:
    """Whether the command exists and ends well."""
    try:
        return (
            subprocess.run(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=clean_environ(),
            ).returncode
            == 0
        )
    except OSError:
        return False


def apt_environ() -> dict[str, str]:
    """An environment in which apt asks nothing."""
    return {**clean_environ(), "DEBIAN_FRONTEND": "noninteractive"}


def install_debian_venv(log: Log) -> bool:
    """On Debian as root, install what `python3 -m venv` needs. Returns whether it is there afterwards."""
    # Debian's own Python only: another one (pyenv, conda) has ensurepip or can't be helped by a Debian
    # package.
    if os.geteuid() != 0 or not shutil.which("apt-get") or not sys.executable.startswith("/usr/bin/"):
        return False
    package = f"python3.{sys.version_info[1]}-venv"
    log(f"Installing the Debian package {package} (python3 -m venv needs it) ...")
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", package]
    try:
        run(command, fail="apt-get install failed", hint="", env=apt_environ())
    except BootstrapError:  # perhaps only the package lists are missing or old
        try:
            run(["apt-get", "update", "-q"], fail="apt-get update failed", hint="", env=apt_environ())
            run(command, fail="apt-get install failed", hint="", env=apt_environ())
        except BootstrapError as error:
            log(error.message)
            return False
    importlib.invalidate_caches()
    return have("ensurepip")


def debian_pip_wheel(target: Path) -> Path | None:
    """Without root on Debian: unpack the package python3-pip-whl under `target`; its wheel of pip, if any."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return None
    target.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            ["apt-get", "download", "-q", "python3-pip-whl"],
            cwd=target,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=apt_environ(),
        )
        packages = sorted(target.glob("python3-pip-whl_*.deb"))
        if done.returncode or not packages:
            return None
        subprocess.run(["dpkg-deb", "-x", packages[-1], target], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return next(iter(sorted(target.glob("usr/share/python-wheels/pip-*.whl"))), None)


def create_environment(directory: Path, log: Log) -> None:
    """Make an empty virtual environment with pip in `directory`, by whatever way this machine offers.

    Raises:
        BootstrapError: no way worked; the hint says what to install.
    """
    python = environment_python(directory)
    if directory.exists():
        if (directory / STARTED).exists():
            shutil.rmtree(directory)
        elif not works([python, "-m", "pip", "--version"]) and any(directory.iterdir()):
            raise BootstrapError(
                f"{directory} was not made by Jobmon, and is not a working virtual environment with pip",
                "Remove it, or set JOBMON_VENV to a directory that Jobmon may use.",
            )
        elif works([python, "-m", "pip", "--version"]):
            log(f"Using the virtual environment that is there: {directory}")
            return
    directory.mkdir(parents=True, exist_ok=True)
    (directory / STARTED).touch()
    log(f"Making the virtual environment {directory} ...")
    hint = "See the lines above; then run this again."
    venv = [sys.executable, "-m", "venv"]
    if have("venv") and (have("ensurepip") or install_debian_venv(log)):
        run([*venv, directory], fail="python3 -m venv failed", hint=hint)
    elif have("virtualenv"):
        run([sys.executable, "-m", "virtualenv", "-q", directory], fail="virtualenv failed", hint=hint)
    elif shutil.which("uv"):
        run(
            ["uv", "venv", "-q", "--seed", "--allow-existing", "--python", sys.executable, directory],
            fail="uv venv failed",
            hint=hint,
        )
    elif have("venv"):
        run([*venv, "--without-pip", directory], fail="python3 -m venv --without-pip failed", hint=hint)
        seed_pip(directory, log)
    if not works([python, "-m", "pip", "--version"]):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise BootstrapError(
            f"This Python ({sys.executable}) can't make a virtual environment with pip",
            f"Debian, Ubuntu: apt-get install python{version}-venv (as root). Elsewhere: give this Python a "
            f"pip ({sys.executable} -m ensurepip --user), or install uv. Then run this again.",
        )


def foreign_pip(source: Path) -> list[str]:
    """Arguments of a Python that make it run the pip in `source`, a directory or wheel of another Python."""
    path = f"import runpy, sys; sys.path.insert(0, {str(source)!r})"
    return ["-c", f"{path}; runpy.run_module('pip', run_name='__main__', alter_sys=True)"]


def seed_pip(directory: Path, log: Log) -> None:
    """Put pip into the environment in `directory`, by another pip: this Python's, or one unpacked from
    Debian's package.

    Leaves the environment without pip if there is none; the caller looks.
    """
    python = environment_python(directory)
    with tempfile.TemporaryDirectory(prefix="jobmon-pip-") as scratch:
        if have("pip"):
            import pip

            source = Path(pip.__file__).parent.parent
        else:
            log("Fetching Debian's package python3-pip-whl (only to take pip out of it) ...")
            wheel = debian_pip_wheel(Path(scratch))
            if wheel is None:
                return
            source = wheel
        # The environment's Python runs the foreign pip: whatever its version, it installs into this
        # environment.
        arguments = ["install", *QUIETLY, "--ignore-installed", "pip"]
        run([python, *foreign_pip(source), *arguments], fail="pip could not be installed", hint=INDEX_HINT)


def install(repo: Path, directory: Path, extras: Iterable[str], log: Log) -> None:
    """Install the project in `repo`, editable and with `extras`, into the environment in `directory`.

    Raises:
        BootstrapError: pip failed; the message has the end of what it said.
    """
    names = ",".join(sorted(extras))
    log(f"Installing Jobmon{f' with {names}' if names else ''} and what it needs (at first: a minute) ...")
    run(
        [
            environment_python(directory),
            "-m",
            "pip",
            "install",
            *QUIETLY,
            "--editable",
            f"{repo}[{names}]" if names else repo,
        ],
        fail="pip install failed",
        hint=INDEX_HINT,
    )


def ensure_environment(repo: Path, extras: Iterable[str] = (), log: Log = log_to_stderr) -> Path:
    """Make the environment for `repo`, or bring it up to date; do nothing if it is current.

    Args:
        repo: the clone.
        extras: names of optional dependencies in pyproject.toml that must be there.
        log: takes a line for the person who waits.

    Returns:
        The environment's Python.

    Raises:
        BootstrapError: it can't be done.
    """
    repo = repo.resolve()
    wanted = set(extras)
    shared = repo / ".venv"
    if "JOBMON_VENV" not in os.environ and is_current(repo, shared, wanted):
        return environment_python(shared)
    directory = environment_dir(repo)
    if is_current(repo, directory, wanted):
        return environment_python(directory)
    started = time.monotonic()
    try:
        # Beside the directory, not in it: the directory may be removed and made anew under the lock.
        busy = "Another process is setting up the same environment: waiting for it ..."
        with locked(directory.parent / f"{directory.name}.lock", log, busy):
            if not is_current(repo, directory, wanted):  # the one we waited for may have done it
                wanted |= installed_extras(directory)
                python = environment_python(directory)
                if not read_stamp(directory) or not works([python, "-m", "pip", "--version"]):
                    create_environment(directory, log)
                install(repo, directory, wanted, log)
                write_stamp(repo, directory, wanted)
    except OSError as error:
        raise BootstrapError(
            f"The virtual environment {directory} can't be made: {error}",
            "Set JOBMON_VENV to a directory that you may write to.",
        ) from error
    log(f"The environment is ready ({time.monotonic() - started:.0f} s).")
    return environment_python(directory)


def run_script(
    script: Path, arguments: Sequence[str], *, extras: Iterable[str] = (), prepare: Sequence[str] = ()
) -> int:
    """Go on with another program in the project's environment, in place of this process.

    Args:
        script: the file that was started; it stands in the clone's top directory.
        arguments: arguments of Python: `-m`, the module, and its arguments.
        extras: names of optional dependencies in pyproject.toml that must be there.
        prepare: arguments of a Python in that environment that is run before, if any.

    Returns:
        1 (130 after Ctrl-C), after an error message, if that is not possible; otherwise this does not return.
    """
    try:
        python = ensure_environment(script.resolve().parent, extras)
        environ = clean_environ()
        if prepare and (code := subprocess.run([python, "-P", *prepare], env=environ).returncode):
            return code
    except BootstrapError as error:
        log_to_stderr(f"Error: {error.message}")
        log_to_stderr(f"Hint: {error.hint}")
        return 1
    except KeyboardInterrupt:
        log_to_stderr("Interrupted. What is half done will be done again by the next run.")
        return 130
    # -P: a file in the current directory must not stand in for a module of ours.
    os.execve(python, [str(python), "-P", *arguments], environ)
