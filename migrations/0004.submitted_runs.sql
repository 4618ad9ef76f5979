-- Runs that are handed to distributors: the database ends them, and dags of a higher priority are claimed first.

ALTER TABLE task_dag ADD COLUMN priority INT NOT NULL DEFAULT 0 COMMENT 'dags of a higher one are claimed from first';

ALTER TABLE workflow_run
    ADD COLUMN submitted_date DATETIME(6) NULL COMMENT 'from then on distributors claim its jobs and the database ends it; NULL: its client does both';

-- the few live ones among all that ever were
ALTER TABLE workflow_run ADD KEY live (status);

INSERT INTO api_error (errno, name, http_status, message, hint) VALUES
    (32045, 'JOB_NOT_LIVE', 409, 'The job has no live job instance.', 'Only a job that is INSTANTIATED or RUNNING can be killed.');

UPDATE api_error SET hint = 'Stop that run first, or wait until its heartbeat is old.' WHERE name = 'WORKFLOW_RUN_ALIVE';

UPDATE schema_info SET schema_version = 4, compatible_since = 3;
