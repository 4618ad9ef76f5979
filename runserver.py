#!/usr/bin/env python3
"""Set Jobmon up and start it: database, JobStateManager, JobQueryServer. See `./runserver.py --help`.

Standard library only, and plain enough for an old Python to say that it is too old: everything real is in
jobmon/bootstrap.py (the virtual environment) and jobmon/runserver.py (what runs in it).
"""

import os
import shutil
import sys

OLDEST = (3, 11)


def run_with_newer_python(script):  # type: ignore[no-untyped-def]
    """Start the script again by a Python that is new enough; return 1 after a message if there is none."""
    for minor in (13, 12, 11, 14, 15):
        newer = shutil.which("python3." + str(minor))
        if newer:
            os.execv(newer, [newer, os.path.realpath(script)] + sys.argv[1:])  # noqa: RUF005
    sys.stderr.write(
        "Error: Jobmon needs Python {}.{} or newer; this is {}.{}, and no newer one is on the PATH\n"
        "Hint: install python3.11 or newer (Debian 12, Ubuntu 24.04, RHEL 9 have packages).\n".format(
            *(OLDEST + tuple(sys.version_info[:2]))
        )
    )
    return 1


def main():  # type: ignore[no-untyped-def]
    """Set up, and go on as jobmon.runserver in the virtual environment."""
    if sys.version_info < OLDEST:
        return run_with_newer_python(__file__)
    from pathlib import Path

    from jobmon import bootstrap

    return bootstrap.run_script(Path(__file__), ["-m", "jobmon.runserver", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
