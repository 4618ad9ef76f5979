# Jobmon from R: three jobs are registered, claimed, run and reported. Needs the packages httr2 and jsonlite.
#
# Start the services first: `./runserver.py --detach`. Then: `Rscript examples/jobmon.R`
#
# To run R scripts as jobs you need none of this: use RTask of the Python client library.

library(httr2)

config <- jsonlite::fromJSON(Sys.getenv("JOBMON_RC", "~/.jobmonrc"))

# Performs a request. What fails for a moment is sent again; that does no harm, as calls that make something
# carry a request_key. An error says what Jobmon said.
perform <- function(req) {
  if (!is.null(config$token)) req <- req_auth_bearer_token(req, config$token)
  req |>
    req_retry(max_tries = 5, is_transient = \(resp) resp_status(resp) %in% c(502, 503, 504)) |>
    req_error(body = \(resp) resp_body_json(resp)$error$message) |>
    req_perform() |>
    resp_body_json()
}
url <- function(port, route) sprintf("http://%s:%d/%s", config$host, as.integer(port), route)
post <- function(route, ...) perform(req_body_json(request(url(config$jsm_port, route)), list(...)))
get <- function(view, ...) perform(req_url_query(request(url(config$jqs_port, view)), ...))
new_key <- function() paste(sample(c(0:9, letters), 32, replace = TRUE), collapse = "")

me <- Sys.info()[["user"]]
node <- Sys.info()[["nodename"]]
args <- paste("R", format(Sys.time()), Sys.getpid())
hash <- jsonlite::base64_enc(charToRaw(args))

# Register. A job_hash is the job's identity in its dag; upstream jobs come first. list("1") is sent as ["1"].
dag_id <- post("add_task_dag", name = "R", user = me, dag_hash = hash, request_key = new_key())$dag_id
post("add_jobs", dag_id = dag_id, jobs = list(
  list(name = "one", job_hash = "1", command = "echo 1"),
  list(name = "two", job_hash = "2", command = "echo 2", upstream_job_hashes = list("1")),
  list(name = "fail", job_hash = "3", command = "exit 3", max_attempts = 2)
))
workflow_id <- post("add_workflow",
  dag_id = dag_id, workflow_args = args, workflow_hash = hash, name = "R", user = me
)$workflow_dct$id

# Run, and report. A command that runs longer than lease_seconds needs log_job_instance_heartbeat meanwhile.
run_id <- post("add_workflow_run",
  workflow_id = workflow_id, user = me, hostname = node, pid = Sys.getpid(), request_key = new_key()
)$workflow_run_id
post("submit_workflow_run", workflow_run_id = run_id)
while (post("end_workflow_run", workflow_run_id = run_id)$status == "R") {
  claimed <- post("claim_jobs",
    executor_type = "R", workflow_run_id = run_id, max_jobs = 1, lease_seconds = 60, request_key = new_key()
  )$job_instances
  if (length(claimed) == 0) Sys.sleep(1)
  for (instance in claimed) {
    id <- instance$job_instance_id
    post("log_running", job_instance_id = id, nodename = node, process_group_id = Sys.getpid())
    code <- system2("/bin/bash", c("-c", shQuote(instance$command)))
    if (code == 0) {
      post("log_done", job_instance_id = id)
    } else {
      post("log_error", job_instance_id = id, error_message = paste("exit code", code))
    }
  }
}

# See.
for (job in get("jobs", dag_id = dag_id)$jobs) cat(job$name, job$status, job$num_attempts, "\n")
