-- Every table of the model. What may be in them is decided by the triggers in sql/triggers/.
--
-- No collation stands here: the database's own is used, which `jobmon db migrate` makes binary and NO PAD, so that
-- `=` on hashes and args is exact (case, trailing blanks) on MySQL and on MariaDB alike.
-- status columns carry no foreign key to their lookup table: the triggers let only letters of a transition row in,
-- and a foreign key would lock a lookup row at every change.

CREATE TABLE schema_info (
    schema_info_id TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    schema_version INT UNSIGNED NOT NULL COMMENT 'number of the last migration',
    compatible_since INT UNSIGNED NOT NULL COMMENT 'the oldest code (by its own last migration) that works on this schema'
) ENGINE = InnoDB COMMENT = 'One row: which code fits this schema';

CREATE TABLE schema_object (
    object_type VARCHAR(16) NOT NULL COMMENT 'function, view, procedure or trigger',
    object_name VARCHAR(64) NOT NULL,
    file_checksum CHAR(64) NOT NULL COMMENT 'SHA-256 of the file it was loaded from',
    live_checksum CHAR(64) NOT NULL COMMENT 'SHA-256 of what the server made of it',
    loaded_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    PRIMARY KEY (object_type, object_name)
) ENGINE = InnoDB COMMENT = 'Routines, triggers and views as jobmon db migrate loaded them';

-- Lookup tables ----------------------------------------------------------------------------------------------------

CREATE TABLE job_status (
    status CHAR(1) NOT NULL PRIMARY KEY,
    label VARCHAR(64) NOT NULL
) ENGINE = InnoDB;

CREATE TABLE job_instance_status (
    status CHAR(1) NOT NULL PRIMARY KEY,
    label VARCHAR(64) NOT NULL
) ENGINE = InnoDB;

CREATE TABLE workflow_status (
    status CHAR(1) NOT NULL PRIMARY KEY,
    label VARCHAR(64) NOT NULL
) ENGINE = InnoDB;

CREATE TABLE workflow_run_status (
    status CHAR(1) NOT NULL PRIMARY KEY,
    label VARCHAR(64) NOT NULL
) ENGINE = InnoDB;

CREATE TABLE job_transition (
    from_status CHAR(1) NOT NULL,
    to_status CHAR(1) NOT NULL,
    reason VARCHAR(255) NOT NULL,
    PRIMARY KEY (from_status, to_status),
    FOREIGN KEY (from_status) REFERENCES job_status (status),
    FOREIGN KEY (to_status) REFERENCES job_status (status)
) ENGINE = InnoDB COMMENT = 'The job state machine';

CREATE TABLE job_instance_transition (
    from_status CHAR(1) NOT NULL,
    to_status CHAR(1) NOT NULL,
    reason VARCHAR(255) NOT NULL,
    PRIMARY KEY (from_status, to_status),
    FOREIGN KEY (from_status) REFERENCES job_instance_status (status),
    FOREIGN KEY (to_status) REFERENCES job_instance_status (status)
) ENGINE = InnoDB COMMENT = 'The job instance state machine';

CREATE TABLE workflow_transition (
    from_status CHAR(1) NOT NULL,
    to_status CHAR(1) NOT NULL,
    reason VARCHAR(255) NOT NULL,
    PRIMARY KEY (from_status, to_status),
    FOREIGN KEY (from_status) REFERENCES workflow_status (status),
    FOREIGN KEY (to_status) REFERENCES workflow_status (status)
) ENGINE = InnoDB COMMENT = 'The workflow state machine';

CREATE TABLE workflow_run_transition (
    from_status CHAR(1) NOT NULL,
    to_status CHAR(1) NOT NULL,
    reason VARCHAR(255) NOT NULL,
    PRIMARY KEY (from_status, to_status),
    FOREIGN KEY (from_status) REFERENCES workflow_run_status (status),
    FOREIGN KEY (to_status) REFERENCES workflow_run_status (status)
) ENGINE = InnoDB COMMENT = 'The workflow run state machine';

CREATE TABLE api_error (
    errno INT UNSIGNED NOT NULL PRIMARY KEY COMMENT '32001 and up are ours (a signed 16 bit number for PyMySQL); others are the server''s own',
    name VARCHAR(64) NOT NULL,
    http_status SMALLINT UNSIGNED NOT NULL,
    message VARCHAR(255) NOT NULL,
    hint VARCHAR(255) NOT NULL,
    UNIQUE KEY (name)
) ENGINE = InnoDB COMMENT = 'Every error that the database raises on purpose, and how HTTP tells it';

CREATE TABLE jqs_route (
    view_name VARCHAR(64) NOT NULL PRIMARY KEY,
    arguments VARCHAR(255) NOT NULL COMMENT 'columns of the view, comma separated; each must be given',
    answer_key VARCHAR(64) NULL COMMENT 'the key under which the documents stand; NULL: the document is the answer',
    cardinality VARCHAR(16) NOT NULL COMMENT 'many, first or cursor',
    none_status SMALLINT UNSIGNED NOT NULL DEFAULT 200 COMMENT 'HTTP status where the view gives no row',
    none_document VARCHAR(255) NULL COMMENT 'the answer where the view gives no row',
    description VARCHAR(255) NOT NULL
) ENGINE = InnoDB COMMENT = 'The shape in which JQS answers the routes of the wire protocol';

CREATE TABLE change_shard (
    change_shard TINYINT UNSIGNED NOT NULL PRIMARY KEY
) ENGINE = InnoDB COMMENT = 'Rows that writers of job_status_log lock until they commit: within a shard, log ids are in commit order';

CREATE TABLE workflow_attribute_type (
    attribute_type INT UNSIGNED NOT NULL PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    value_type VARCHAR(16) NOT NULL COMMENT 'int or string',
    UNIQUE KEY (name)
) ENGINE = InnoDB;

CREATE TABLE workflow_run_attribute_type (
    attribute_type INT UNSIGNED NOT NULL PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    value_type VARCHAR(16) NOT NULL COMMENT 'int or string',
    UNIQUE KEY (name)
) ENGINE = InnoDB;

CREATE TABLE job_attribute_type (
    attribute_type INT UNSIGNED NOT NULL PRIMARY KEY,
    name VARCHAR(255) NOT NULL,
    value_type VARCHAR(16) NOT NULL COMMENT 'int or string',
    UNIQUE KEY (name)
) ENGINE = InnoDB;

-- State tables -----------------------------------------------------------------------------------------------------

CREATE TABLE task_dag (
    dag_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    dag_hash VARCHAR(150) NOT NULL,
    name VARCHAR(150) NULL,
    user VARCHAR(150) NOT NULL,
    max_concurrently_running INT UNSIGNED NULL COMMENT 'live job instances at a time; NULL: no limit',
    created_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    heartbeat_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    -- a resuming client looks for its dag by hash
    KEY (dag_hash)
) ENGINE = InnoDB COMMENT = 'A set of jobs and their edges';

CREATE TABLE workflow (
    workflow_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    dag_id BIGINT UNSIGNED NOT NULL,
    workflow_args MEDIUMTEXT NOT NULL,
    workflow_hash MEDIUMTEXT NOT NULL,
    workflow_args_key BINARY(32) AS (UNHEX(SHA2(workflow_args, 256))) STORED,
    workflow_hash_key BINARY(32) AS (UNHEX(SHA2(workflow_hash, 256))) STORED,
    name VARCHAR(150) NOT NULL,
    user VARCHAR(150) NOT NULL,
    description MEDIUMTEXT NULL,
    status CHAR(1) NOT NULL DEFAULT 'C',
    created_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    status_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    -- texts have no full index, so their digests are the keys: one workflow for a dag and its args,
    -- and of two binds at once the second is refused
    UNIQUE KEY workflow_args_once (dag_id, workflow_args_key),
    UNIQUE KEY workflow_hash_once (workflow_hash_key),
    FOREIGN KEY (dag_id) REFERENCES task_dag (dag_id)
) ENGINE = InnoDB COMMENT = 'A task dag with workflow_args';

CREATE TABLE workflow_run (
    workflow_run_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    workflow_id BIGINT UNSIGNED NOT NULL,
    user VARCHAR(150) NOT NULL,
    hostname VARCHAR(255) NOT NULL,
    pid BIGINT UNSIGNED NOT NULL,
    stderr VARCHAR(1000) NULL,
    stdout VARCHAR(1000) NULL,
    working_dir VARCHAR(1000) NULL,
    project VARCHAR(150) NULL,
    slack_channel VARCHAR(150) NULL,
    executor_class VARCHAR(150) NULL,
    status CHAR(1) NOT NULL DEFAULT 'R',
    created_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    status_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    heartbeat_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    -- the live run of a workflow, and all of its runs
    KEY (workflow_id, status),
    FOREIGN KEY (workflow_id) REFERENCES workflow (workflow_id)
) ENGINE = InnoDB COMMENT = 'One execution of a workflow';

CREATE TABLE job (
    job_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    dag_id BIGINT UNSIGNED NULL,
    job_hash VARCHAR(255) NOT NULL,
    name VARCHAR(255) NOT NULL,
    tag VARCHAR(255) NULL,
    command MEDIUMTEXT NOT NULL,
    context_args MEDIUMTEXT NULL,
    slots INT UNSIGNED NOT NULL DEFAULT 1,
    mem_free INT UNSIGNED NOT NULL DEFAULT 2 COMMENT 'GB',
    max_runtime INT UNSIGNED NULL COMMENT 'seconds from RUNNING; NULL: no limit',
    max_attempts INT UNSIGNED NOT NULL DEFAULT 1,
    num_attempts INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'job instances since the last reset',
    attempts_before_reset INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'job instances before the last reset; with num_attempts: the newest attempt_number',
    has_downstreams TINYINT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'spares jobs without edges the look at job_edge when they end',
    status CHAR(1) NOT NULL DEFAULT 'G',
    created_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    status_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    -- a job's identity in its dag; serves "all jobs of a dag" as well
    UNIQUE KEY job_hash_once (dag_id, job_hash),
    -- the queue (any dag or one), and the count of each status of a dag
    KEY (status, dag_id),
    FOREIGN KEY (dag_id) REFERENCES task_dag (dag_id)
) ENGINE = InnoDB COMMENT = 'A call to be made';

CREATE TABLE job_edge (
    upstream_job_id BIGINT UNSIGNED NOT NULL,
    downstream_job_id BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (upstream_job_id, downstream_job_id),
    KEY (downstream_job_id),
    FOREIGN KEY (upstream_job_id) REFERENCES job (job_id),
    FOREIGN KEY (downstream_job_id) REFERENCES job (job_id)
) ENGINE = InnoDB COMMENT = 'The downstream job waits for the upstream job; upstream ids are the smaller ones, so there is no cycle';

CREATE TABLE job_gate (
    job_id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
    upstreams_pending INT UNSIGNED NOT NULL,
    FOREIGN KEY (job_id) REFERENCES job (job_id)
) ENGINE = InnoDB COMMENT = 'How many upstreams of a job are not DONE; no row: it has none. Kept by triggers';

CREATE TABLE job_instance (
    job_instance_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    job_id BIGINT UNSIGNED NOT NULL,
    attempt_number INT UNSIGNED NOT NULL DEFAULT 0 COMMENT 'from 1, over all resets; given by the trigger',
    workflow_run_id BIGINT UNSIGNED NULL,
    executor_type VARCHAR(150) NOT NULL,
    executor_id VARCHAR(64) NULL COMMENT 'the batch executor''s own id',
    nodename VARCHAR(255) NULL,
    process_group_id BIGINT UNSIGNED NULL,
    usage_str VARCHAR(1000) NULL,
    wallclock VARCHAR(64) NULL COMMENT 'as the executor wrote it; for a number see running_date and ended_date',
    maxvmem VARCHAR(64) NULL,
    cpu VARCHAR(64) NULL,
    io VARCHAR(64) NULL,
    status CHAR(1) NOT NULL DEFAULT 'I',
    error_message MEDIUMTEXT NULL COMMENT 'why it is in ERROR; job_instance_error_log keeps them all',
    lease_seconds INT UNSIGNED NULL COMMENT 'each report moves report_by_date this far ahead; NULL: its client does not renew leases',
    report_by_date DATETIME(6) NULL COMMENT 'lost if nothing is heard until then; NULL: not watched, or ended',
    created_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    submitted_date DATETIME(6) NULL,
    running_date DATETIME(6) NULL,
    ended_date DATETIME(6) NULL,
    status_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    -- the newest instance of a job; and an attempt can be made once only
    UNIQUE KEY attempt_once (job_id, attempt_number),
    -- leases that ran out: ended instances have NULL, so the part that is read stays small
    KEY (report_by_date),
    FOREIGN KEY (job_id) REFERENCES job (job_id),
    FOREIGN KEY (workflow_run_id) REFERENCES workflow_run (workflow_run_id)
) ENGINE = InnoDB COMMENT = 'One attempt at a job';

CREATE TABLE workflow_attribute (
    workflow_attribute_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    workflow_id BIGINT UNSIGNED NOT NULL,
    attribute_type INT UNSIGNED NOT NULL,
    value VARCHAR(255) NOT NULL,
    FOREIGN KEY (workflow_id) REFERENCES workflow (workflow_id),
    FOREIGN KEY (attribute_type) REFERENCES workflow_attribute_type (attribute_type)
) ENGINE = InnoDB;

CREATE TABLE workflow_run_attribute (
    workflow_run_attribute_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    workflow_run_id BIGINT UNSIGNED NOT NULL,
    attribute_type INT UNSIGNED NOT NULL,
    value VARCHAR(255) NOT NULL,
    FOREIGN KEY (workflow_run_id) REFERENCES workflow_run (workflow_run_id),
    FOREIGN KEY (attribute_type) REFERENCES workflow_run_attribute_type (attribute_type)
) ENGINE = InnoDB;

CREATE TABLE job_attribute (
    job_attribute_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    job_id BIGINT UNSIGNED NOT NULL,
    attribute_type INT UNSIGNED NOT NULL,
    value VARCHAR(255) NOT NULL,
    FOREIGN KEY (job_id) REFERENCES job (job_id),
    FOREIGN KEY (attribute_type) REFERENCES job_attribute_type (attribute_type)
) ENGINE = InnoDB;

-- History: append-only, written by triggers. No foreign keys to jobs and instances: those are never deleted but by
-- pruning, which takes the history first. -----------------------------------------------------------------------------------

CREATE TABLE job_status_log (
    job_status_log_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    job_id BIGINT UNSIGNED NOT NULL,
    dag_id BIGINT UNSIGNED NULL,
    from_status CHAR(1) NULL COMMENT 'NULL: the job was made',
    status CHAR(1) NOT NULL,
    attempt_number INT UNSIGNED NOT NULL COMMENT 'the newest attempt at that time; 0: none yet',
    change_shard TINYINT UNSIGNED NOT NULL,
    status_date DATETIME(6) NOT NULL,
    -- the history of a job
    KEY (job_id),
    -- the change cursor reads each shard from its last id on
    KEY (change_shard, job_status_log_id)
) ENGINE = InnoDB COMMENT = 'Every status each job had';

CREATE TABLE job_instance_status_log (
    job_instance_status_log_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    job_instance_id BIGINT UNSIGNED NOT NULL,
    from_status CHAR(1) NULL COMMENT 'NULL: the instance was made',
    status CHAR(1) NOT NULL,
    status_date DATETIME(6) NOT NULL,
    KEY (job_instance_id),
    -- the state machine itself: what is no row there can't be in the history, so it can't happen
    FOREIGN KEY (from_status, status) REFERENCES job_instance_transition (from_status, to_status)
) ENGINE = InnoDB COMMENT = 'Every status each job instance had';

CREATE TABLE job_instance_error_log (
    job_instance_error_log_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    job_instance_id BIGINT UNSIGNED NOT NULL,
    error_time DATETIME(6) NOT NULL,
    description MEDIUMTEXT NOT NULL,
    KEY (job_instance_id)
) ENGINE = InnoDB COMMENT = 'Every error of each job instance';

-- Around them ------------------------------------------------------------------------------------------------------

CREATE TABLE api_request (
    request_key VARCHAR(64) NOT NULL PRIMARY KEY COMMENT 'made up by the caller, one for each thing to be done',
    procedure_name VARCHAR(64) NOT NULL,
    answer LONGTEXT NULL,
    created_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    -- pruning by age
    KEY (created_date)
) ENGINE = InnoDB COMMENT = 'Answers that were given: a call repeated under its request_key gets the same one';

CREATE TABLE notification (
    notification_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    channel VARCHAR(150) NULL COMMENT 'NULL: the default channel',
    message MEDIUMTEXT NOT NULL,
    created_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)),
    sent_date DATETIME(6) NULL,
    num_attempts INT UNSIGNED NOT NULL DEFAULT 0,
    error_message VARCHAR(1000) NULL COMMENT 'of the last attempt to send it',
    -- what is still to be sent, oldest first
    KEY (sent_date, notification_id)
) ENGINE = InnoDB COMMENT = 'Outbox: what must be told to Slack, and whether it was';

INSERT INTO schema_info (schema_info_id, schema_version, compatible_since) VALUES (1, 1, 1);
