-- The health monitor: what the outbox lacked for sending at least once, in order, by several monitors; which runs were taken for
-- lost; since when somebody watches; which nodes and audits have been alarmed about.

-- the end of the row, nullable, without a default: no copy of the table
ALTER TABLE workflow_run
    ADD COLUMN lost_date DATETIME(6) NULL COMMENT 'when it was taken for lost: its heartbeat had been silent for too long';

ALTER TABLE notification
    ADD COLUMN kind VARCHAR(32) NOT NULL DEFAULT 'OTHER' COMMENT 'what it tells: RUN_LOST, RUN_WAITING, RUN_ERROR, RUN_DONE, NODE_FAILING, AUDIT_VIOLATED or OTHER',
    ADD COLUMN dedup_key VARCHAR(400) NULL COMMENT 'what is told once has one; NULL: nothing to be mistaken for',
    ADD COLUMN next_attempt_date DATETIME(6) NULL COMMENT 'not sent before; NULL: at once',
    ADD COLUMN claim_token VARCHAR(64) NULL COMMENT 'made up by the monitor that is sending it',
    ADD COLUMN claimed_until DATETIME(6) NULL COMMENT 'until then no other monitor takes it',
    ADD COLUMN delivery VARCHAR(16) NULL COMMENT 'how it was told: SLACK, or LOG where no token or no channel is configured',
    ADD COLUMN message_ts VARCHAR(64) NULL COMMENT 'Slack''s id of the message in its channel';

-- told once, whoever finds it and however often
ALTER TABLE notification ADD UNIQUE KEY dedup_key (dedup_key);

-- what ended lately, for the failure rates of nodes; read without locks only
ALTER TABLE job_instance ADD KEY ended (ended_date);

CREATE TABLE monitor_check (
    check_name VARCHAR(32) NOT NULL PRIMARY KEY COMMENT 'heartbeats or nodes',
    check_date DATETIME(6) NOT NULL COMMENT 'when a health monitor looked last',
    watched_since DATETIME(6) NULL COMMENT 'from then on no two looks lay farther apart than max_pause_seconds',
    max_pause_seconds INT UNSIGNED NULL COMMENT 'as the monitor that looked last said it'
) ENGINE = InnoDB COMMENT = 'Since when health monitors have been watching without a pause: silence counts from then on only';

CREATE TABLE failing_node (
    nodename VARCHAR(255) NOT NULL PRIMARY KEY,
    failing_since DATETIME(6) NOT NULL COMMENT 'when its episode began; told once an episode',
    check_date DATETIME(6) NOT NULL,
    num_job_instances INT UNSIGNED NOT NULL COMMENT 'that ended in the window and count',
    num_failed INT UNSIGNED NOT NULL COMMENT 'of these'
) ENGINE = InnoDB COMMENT = 'Nodes on which jobs fail that succeed elsewhere, as long as that lasts';

CREATE TABLE audit_state (
    audit VARCHAR(64) NOT NULL PRIMARY KEY COMMENT 'the view',
    check_date DATETIME(6) NOT NULL COMMENT 'when it was read last',
    num_violations INT UNSIGNED NOT NULL COMMENT 'rows it had then; as many as were read at the most',
    violated_since DATETIME(6) NULL COMMENT 'when its violations were first seen; NULL: it is empty, as it must be',
    sample VARCHAR(1000) NULL COMMENT 'the first of the violations'
) ENGINE = InnoDB COMMENT = 'What the health monitor last read in each audit view';

UPDATE schema_info SET schema_version = 6, compatible_since = 3;
