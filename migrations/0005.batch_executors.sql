-- What batch executors need: ends that the scheduler tells apart, resources that grow, names under which a submission is
-- found again, warnings.

INSERT INTO job_instance_status (status, label) VALUES
    ('W', 'NO_EXECUTOR_ID'),
    ('Z', 'RESOURCE_ERROR'),
    ('U', 'UNKNOWN_ERROR');

INSERT INTO job_instance_transition (from_status, to_status, reason) VALUES
    ('I', 'W', 'the batch executor would not take it'),
    ('I', 'Z', 'it used more memory or time than it had asked for'),
    ('B', 'Z', 'it used more memory or time than it had asked for'),
    ('R', 'Z', 'it used more memory or time than it had asked for'),
    ('I', 'U', 'it ended, and nobody knows how'),
    ('B', 'U', 'it ended, and nobody knows how'),
    ('R', 'U', 'it ended, and nobody knows how');

UPDATE job_transition SET reason = 'its newest job instance ended in an error (E, W, Z or U)' WHERE to_status = 'E';

-- columns are added at the end: that changes no row
ALTER TABLE job
    ADD COLUMN mem_free_scale DECIMAL(6,3) NULL COMMENT 'mem_free grows by this part of it when an attempt that exceeded it is retried; NULL: it does not',
    ADD COLUMN max_runtime_scale DECIMAL(6,3) NULL COMMENT 'max_runtime likewise';

ALTER TABLE job_instance
    ADD COLUMN executor_name VARCHAR(128) NULL COMMENT 'name under which it is submitted, known before executor_id',
    ADD COLUMN exceeded VARCHAR(16) NULL COMMENT 'mem_free or max_runtime: what a RESOURCE_ERROR ran out of';

ALTER TABLE job_instance_error_log
    ADD COLUMN severity VARCHAR(16) NOT NULL DEFAULT 'error' COMMENT 'error, or warning: nothing ended by it';

ALTER TABLE schema_info
    ADD COLUMN database_id CHAR(8) NOT NULL DEFAULT '' COMMENT 'random, never changed: what a scheduler is given has it in its name';

UPDATE schema_info SET database_id = LOWER(HEX(RANDOM_BYTES(4)));

INSERT INTO api_error (errno, name, http_status, message, hint) VALUES
    (32047, 'JOB_INSTANCE_STARTED', 409, 'Another task of the scheduler runs this job instance; nothing was changed.', 'Stop: the job instance was submitted twice.');

INSERT INTO jqs_route (view_name, arguments, answer_key, cardinality, none_status, none_document, description) VALUES
    ('get_live_job_instances', 'executor_type', 'job_instances', 'page', 200, NULL, 'The live job instances of an executor, with what is left of their leases');

UPDATE schema_info SET schema_version = 5, compatible_since = 3;
