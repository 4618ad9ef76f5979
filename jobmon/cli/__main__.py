"""``python -m jobmon.cli``: the command ``jobmon``."""

from jobmon.cli import main

main(prog_name="jobmon")
