#!/usr/bin/env python3
"""Run Jobmon's tests. Sets up everything they need (virtual environment, database server) by itself.

Arguments go to pytest, which runs in the clone's directory: `./runtests.py -k sql -x tests/db`. The exit code
is pytest's. JOBMON_TEST_DB_URL names a server to use instead of the embedded one; see CONTRIBUTING.
"""

import os
import sys

import runserver

# Before pytest: installing a server inside a fixture would look like a test that hangs.
FIND_SERVER = ["-c", "from jobmon.stack import main_find_server as main; main()"]


def main():  # type: ignore[no-untyped-def]
    """Set up, and go on as pytest in the virtual environment."""
    if sys.version_info < runserver.OLDEST:
        return runserver.run_with_newer_python(__file__)
    from pathlib import Path

    from jobmon import bootstrap

    os.chdir(os.path.dirname(os.path.realpath(__file__)))
    prepare = [] if os.environ.get("JOBMON_TEST_DB_URL") else FIND_SERVER
    arguments = ["-m", "pytest", *sys.argv[1:]]
    return bootstrap.run_script(Path(__file__), arguments, extras=["test"], prepare=prepare)


if __name__ == "__main__":
    sys.exit(main())
