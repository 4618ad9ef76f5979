-- What the database refuses, and how JQS answers the routes of the wire protocol.

INSERT INTO api_error (errno, name, http_status, message, hint) VALUES
    -- what the caller sent
    (32001, 'MISSING_PARAMETER', 422, 'A parameter that is needed was left out or is null.', 'Send the parameter that the message names.'),
    (32002, 'INVALID_PARAMETER', 422, 'A parameter has a value that cannot be used.', 'See the HTTP reference for what the parameter takes.'),
    (32003, 'INVALID_JSON_PARAMETER', 422, 'A parameter that takes a JSON array got something else.', 'Send a JSON array of objects or ids.'),
    (32004, 'TOO_MANY_ITEMS', 422, 'The array is longer than one call takes.', 'Send it in several calls of at most 10000 items; about 1000 are best.'),
    (32005, 'UNKNOWN_STATUS', 422, 'There is no such status.', 'Send one of the letters of the status tables.'),
    (32006, 'UNKNOWN_ATTRIBUTE_TYPE', 422, 'There is no such attribute type.', 'See the attribute type tables.'),
    (32007, 'INVALID_ATTRIBUTE_VALUE', 422, 'The value does not fit the attribute type.', 'Send a whole number for a type whose value_type is int.'),
    (32008, 'DUPLICATE_JOB_HASH', 422, 'The same job_hash stands twice in one call with different jobs.', 'Send each job of a dag once.'),
    (32009, 'UNKNOWN_UPSTREAM', 422, 'An upstream job is not in this dag.', 'Add upstream jobs before, or earlier in the same call.'),
    (32010, 'UPSTREAM_AFTER_DOWNSTREAM', 422, 'An upstream job must have been added before its downstream job.', 'Send jobs in topological order; a cycle has none.'),
    (32011, 'EDGE_ACROSS_DAGS', 422, 'An edge must join two jobs of one dag.', 'Both jobs of an edge must have the same dag_id.'),
    -- what is not there
    (32020, 'UNKNOWN_DAG', 404, 'There is no such dag.', 'Check the dag_id.'),
    (32021, 'UNKNOWN_JOB', 404, 'There is no such job.', 'Check the job_id.'),
    (32022, 'UNKNOWN_JOB_INSTANCE', 404, 'There is no such job instance.', 'Check the job_instance_id.'),
    (32023, 'UNKNOWN_WORKFLOW', 404, 'There is no such workflow.', 'Check the workflow_id.'),
    (32024, 'UNKNOWN_WORKFLOW_RUN', 404, 'There is no such workflow run.', 'Check the workflow_run_id.'),
    -- what the state machines do not allow
    (32030, 'ILLEGAL_TRANSITION', 409, 'This status cannot follow the present one.', 'See the transition tables; look at the present status before you try again.'),
    (32031, 'JOB_NOT_QUEUED', 409, 'A job instance can only be made for a job in QUEUED_FOR_INSTANTIATION.', 'Somebody else may have made it already: do not run the job.'),
    (32032, 'JOB_INSTANCE_ENDED', 409, 'This job instance has ended already; nothing was changed.', 'Stop: this attempt was decided by another report.'),
    (32033, 'JOB_INSTANCE_SUPERSEDED', 409, 'This job instance was given up; nothing was changed.', 'Stop: the job was reset or a newer attempt has taken its place.'),
    (32034, 'JOB_FOLLOWS_ITS_INSTANCE', 409, 'A job gets this status from its newest job instance only.', 'Report on the job instance; the job is taken along.'),
    (32035, 'UPSTREAM_NOT_DONE', 409, 'The job waits for upstream jobs that are not DONE.', 'It is queued by itself when the last of them is DONE.'),
    (32036, 'ATTEMPTS_EXHAUSTED', 409, 'The job has no attempts left.', 'Give it more by retry_job, or reset it.'),
    (32037, 'ATTEMPTS_LEFT', 409, 'The job has attempts left and is not fatal yet.', 'It is retried by itself.'),
    (32038, 'DOWNSTREAM_NOT_REGISTERED', 409, 'A downstream job has been queued already, so the job cannot be reset alone.', 'Use reset_job, which resets the downstream jobs first.'),
    (32039, 'JOB_NOT_REGISTERED', 409, 'A job that has left REGISTERED cannot get another upstream.', 'Add edges before the job is queued.'),
    (32040, 'ATTEMPT_NUMBER_CONFLICT', 409, 'This is not the next attempt of the job.', 'Look at the job: another attempt was made or the job was reset.'),
    (32041, 'WORKFLOW_HASH_TAKEN', 409, 'This workflow_hash belongs to a workflow of another dag.', 'Two binds at once: look for the workflow by its inputs again and use that one.'),
    (32042, 'WORKFLOW_RUN_ALIVE', 409, 'The workflow has a run in RUNNING.', 'Stop that run first; add_workflow_run does.'),
    (32043, 'REQUEST_KEY_CONFLICT', 409, 'This request_key was used for another procedure.', 'Make up a new key for each thing to be done.'),
    (32044, 'WORKFLOW_RUN_ENDED', 409, 'This workflow run has ended already; nothing was changed.', 'Stop: it was superseded by another run or decided by another report.'),
    -- what nobody may change
    (32050, 'IMMUTABLE_COLUMN', 409, 'This column is never changed.', 'Make a new row.'),
    (32051, 'APPEND_ONLY', 409, 'History is never changed.', 'It is written by triggers only.'),
    (32052, 'COUNTED_COLUMN', 409, 'This column is counted by triggers only.', 'Leave it out of the statement.'),
    (32053, 'WRONG_FIRST_STATUS', 409, 'A new row starts in its first status.', 'Leave status out of the INSERT.'),
    -- the server's own, where a caller can cause them
    (1048, 'NULL_NOT_ALLOWED', 422, 'A value that is needed was left out or is null.', 'Send the value that the message names.'),
    (1264, 'VALUE_OUT_OF_RANGE', 422, 'A number is out of range.', 'Send a number that fits the column that the message names.'),
    (1366, 'INVALID_VALUE', 422, 'A value does not fit its column.', 'Send a value that fits the column that the message names.'),
    (1406, 'VALUE_TOO_LONG', 422, 'A text is too long.', 'Shorten the value that the message names.'),
    (1452, 'UNKNOWN_REFERENCE', 422, 'A row that is referred to is not there.', 'Check the ids.');

INSERT INTO jqs_route (view_name, arguments, answer_key, cardinality, none_status, none_document, description) VALUES
    ('get_queued', 'dag_id', 'job_dcts', 'many', 200, NULL, 'The jobs of a dag in QUEUED_FOR_INSTANTIATION'),
    ('get_jobs', 'dag_id', 'job_dcts', 'many', 200, NULL, 'All jobs of a dag'),
    ('get_submitted_or_running', 'dag_id', 'ji_dcts', 'many', 200, NULL, 'The job instances of a dag that are with the batch executor or run'),
    ('get_timed_out', 'dag_id', 'timed_out', 'many', 200, NULL, 'The running job instances of a dag that have passed max_runtime'),
    ('get_dag_ids_by_hash', 'dag_hash', 'dag_ids', 'many', 200, NULL, 'The dags that have this hash'),
    ('get_workflows_by_inputs', 'dag_id,workflow_args', NULL, 'first', 204, NULL, 'The workflow of a dag with these workflow_args'),
    ('is_workflow_running', 'workflow_id', NULL, 'first', 200, '{"is_running": false, "workflow_run_dct": {}}', 'Whether a workflow has a run in RUNNING, and the newest such run'),
    ('get_job_instances_of_workflow_run', 'workflow_run_id', 'job_instances', 'many', 200, NULL, 'All job instances of a workflow run'),
    ('get_job_changes', '', 'job_changes', 'cursor', 200, NULL, 'What changed since: every status each job got, in an order in which none is missed');

UPDATE schema_info SET schema_version = 3, compatible_since = 3;
