#!/usr/bin/env bash
# Jobmon from bash: three jobs are registered, claimed, run and reported with curl. Needs curl and jq.
#
# Start the services first: `./runserver.py --detach`. Then: `bash examples/curl.sh`
set -euo pipefail

rc=${JOBMON_RC:-$HOME/.jobmonrc}
host=$(jq -r '.host // "127.0.0.1"' "$rc")
jsm="http://$host:$(jq .jsm_port "$rc")"
jqs="http://$host:$(jq .jqs_port "$rc")"
token=$(jq -r '.token // empty' "$rc")

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# not as an argument, which everybody on this machine could read
printf 'Authorization: Bearer %s\n' "$token" >"$scratch/token"

# call URL [OPTION ...]: the answer. What fails for a moment is sent again; that does no harm, as calls that make
# something carry a request_key. A refusal says why, and ends the script.
call() {
    if ! curl --silent --show-error --fail-with-body --noproxy '*' --retry 5 --retry-connrefused \
        --header @"$scratch/token" --output "$scratch/answer" "$@"; then
        jq -r '.error | .message, .hint' "$scratch/answer" >&2
        return 1
    fi
    cat "$scratch/answer"
}
# post ROUTE JSON: calls a procedure.
post() { call "$jsm/$1" --header 'Content-Type: application/json' --data "$2"; }
new_key() { od -An -N16 -tx1 /dev/urandom | tr -d ' \n'; }

me=$(id -un)
args="curl $(date +%FT%T) $$"
hash=$(printf '%s' "$args" | sha1sum | cut -d' ' -f1)

# Register. A job_hash is the job's identity in its dag; upstream jobs come first.
dag=$(post add_task_dag "{\"name\": \"curl\", \"user\": \"$me\", \"dag_hash\": \"$hash\", \"request_key\": \"$(new_key)\"}" |
    jq .dag_id)
post add_jobs "{\"dag_id\": $dag, \"jobs\": [
    {\"name\": \"one\",  \"job_hash\": \"1\", \"command\": \"echo 1\"},
    {\"name\": \"two\",  \"job_hash\": \"2\", \"command\": \"test -n \\\"\$HOME\\\" && echo 2\", \"upstream_job_hashes\": [\"1\"]},
    {\"name\": \"fail\", \"job_hash\": \"3\", \"command\": \"echo no >&2; exit 3\", \"max_attempts\": 2}]}" >/dev/null
workflow=$(post add_workflow "{\"dag_id\": $dag, \"workflow_args\": \"$args\", \"workflow_hash\": \"$hash\",
    \"name\": \"curl\", \"user\": \"$me\"}" | jq .workflow_dct.id)

# Run.
run=$(post add_workflow_run "{\"workflow_id\": $workflow, \"user\": \"$me\", \"hostname\": \"$(uname -n)\", \"pid\": $$,
    \"request_key\": \"$(new_key)\"}" | jq .workflow_run_id)
post submit_workflow_run "{\"workflow_run_id\": $run}" >/dev/null
while true; do
    status=$(post end_workflow_run "{\"workflow_run_id\": $run}" | jq -r .status)
    [ "$status" = R ] || break
    instance=$(post claim_jobs "{\"executor_type\": \"curl\", \"workflow_run_id\": $run, \"max_jobs\": 1,
        \"lease_seconds\": 60, \"request_key\": \"$(new_key)\"}" | jq '.job_instances[0] // empty')
    if [ -z "$instance" ]; then
        sleep 1
        continue
    fi
    id=$(jq .job_instance_id <<<"$instance")
    # Report. A command that runs longer than lease_seconds needs log_job_instance_heartbeat meanwhile.
    post log_running "{\"job_instance_id\": $id, \"nodename\": \"$(uname -n)\", \"process_group_id\": $$}" >/dev/null
    code=0
    bash -c "$(jq -r .command <<<"$instance")" 2>"$scratch/errors" </dev/null || code=$?
    if [ $code = 0 ]; then
        post log_done "{\"job_instance_id\": $id}" >/dev/null
    else
        post log_error "$(jq -n --argjson id "$id" --arg text "exit code $code: $(tail -c 10000 "$scratch/errors")" \
            '{job_instance_id: $id, error_message: $text}')" >/dev/null
    fi
done

# See.
call "$jqs/jobs?dag_id=$dag" |
    jq -r '.jobs[] | "\(.name) \(.status) attempts=\(.num_attempts) \(.last_error // "")"'
