#!/bin/sh
# Wait until the database server takes connections, then become the command in the arguments (if any).
#
#   wait-for-db.sh jobmon start job_state_manager
#
# JOBMON_ROLE        whose account is meant: jsm, jqs, migrator, reader or admin (default jsm); where the server is
#                    says the configuration, as for every jobmon command
# JOBMON_WAIT_SECONDS  give up after so many seconds, with exit code 1 (default 300)
set -eu
python -m jobmon.containers.wait server
if [ $# -gt 0 ]; then exec "$@"; fi
