#!/bin/sh
# Wait until the database's schema fits this code, then become the command in the arguments (if any).
#
#   wait-for-tables.sh jobmon start job_state_manager
#
# That some table exists is not enough: the schema's version must be this code's or newer, and must still serve this
# code; the account must be able to log in, and to ask. These are the rules of /readyz.
#
# JOBMON_ROLE        whose account asks: jsm, jqs, migrator, reader or admin (default jsm)
# JOBMON_WAIT_SECONDS  give up after so many seconds, with exit code 1 (default 300)
set -eu
python -m jobmon.containers.wait schema
if [ $# -gt 0 ]; then exec "$@"; fi
