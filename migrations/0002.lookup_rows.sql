-- The state machines as rows (triggers look here, the docs' diagrams are drawn from here), the attribute types of
-- the emu releases, the shards of the change cursor.

INSERT INTO job_status (status, label) VALUES
    ('G', 'REGISTERED'),
    ('Q', 'QUEUED_FOR_INSTANTIATION'),
    ('I', 'INSTANTIATED'),
    ('R', 'RUNNING'),
    ('E', 'ERROR_RECOVERABLE'),
    ('F', 'ERROR_FATAL'),
    ('D', 'DONE');

INSERT INTO job_instance_status (status, label) VALUES
    ('I', 'INSTANTIATED'),
    ('B', 'SUBMITTED_TO_BATCH_EXECUTOR'),
    ('R', 'RUNNING'),
    ('E', 'ERROR'),
    ('D', 'DONE');

INSERT INTO workflow_status (status, label) VALUES
    ('C', 'CREATED'),
    ('R', 'RUNNING'),
    ('S', 'STOPPED'),
    ('E', 'ERROR'),
    ('D', 'DONE');

INSERT INTO workflow_run_status (status, label) VALUES
    ('R', 'RUNNING'),
    ('S', 'STOPPED'),
    ('E', 'ERROR'),
    ('D', 'DONE');

INSERT INTO job_transition (from_status, to_status, reason) VALUES
    ('G', 'Q', 'queued: all of its upstreams are DONE'),
    ('Q', 'I', 'a job instance was made'),
    ('I', 'R', 'its newest job instance is RUNNING'),
    ('I', 'E', 'its newest job instance ended in ERROR'),
    ('R', 'E', 'its newest job instance ended in ERROR'),
    ('R', 'D', 'its newest job instance is DONE'),
    ('E', 'Q', 'retried: it has attempts left'),
    ('E', 'F', 'its attempts have reached max_attempts'),
    ('F', 'Q', 'given more attempts by retry_job'),
    ('Q', 'G', 'reset'),
    ('I', 'G', 'reset: its live job instance ends in ERROR'),
    ('R', 'G', 'reset: its live job instance ends in ERROR'),
    ('F', 'G', 'reset'),
    ('D', 'G', 'reset: no downstream may have been queued');

INSERT INTO job_instance_transition (from_status, to_status, reason) VALUES
    ('I', 'B', 'the batch executor gave an executor_id'),
    ('I', 'R', 'it reported running'),
    ('I', 'E', 'it failed, was lost, or its job was reset'),
    ('B', 'R', 'it reported running'),
    ('B', 'E', 'it failed, was lost, or its job was reset'),
    ('R', 'D', 'its command ended well'),
    ('R', 'E', 'it failed, was lost, or its job was reset');

INSERT INTO workflow_transition (from_status, to_status, reason) VALUES
    ('C', 'R', 'a workflow run started'),
    ('C', 'S', 'stopped'),
    ('C', 'E', 'failed'),
    ('C', 'D', 'all of its jobs are DONE'),
    ('R', 'S', 'stopped'),
    ('R', 'E', 'failed'),
    ('R', 'D', 'all of its jobs are DONE'),
    ('S', 'R', 'resumed'),
    ('S', 'E', 'failed'),
    ('S', 'D', 'all of its jobs are DONE'),
    ('E', 'R', 'resumed'),
    ('E', 'S', 'stopped'),
    ('E', 'D', 'all of its jobs are DONE');

INSERT INTO workflow_run_transition (from_status, to_status, reason) VALUES
    ('R', 'S', 'stopped, or superseded by a newer run'),
    ('R', 'E', 'failed, or lost'),
    ('R', 'D', 'all of its jobs are DONE'),
    ('E', 'S', 'a run that was taken for lost reports that it was stopped'),
    ('E', 'D', 'a run that was taken for lost reports its end');

INSERT INTO job_attribute_type (attribute_type, name, value_type) VALUES
    (1, 'NUM_LOCATIONS', 'int'),
    (2, 'NUM_DRAWS', 'int'),
    (3, 'NUM_AGE_GROUPS', 'int'),
    (4, 'NUM_YEARS', 'int'),
    (5, 'NUM_RISKS', 'int'),
    (6, 'NUM_CAUSES', 'int'),
    (7, 'NUM_SEXES', 'int'),
    (8, 'TAG', 'string'),
    (9, 'NUM_MEASURES', 'int'),
    (10, 'NUM_METRICS', 'int'),
    (11, 'NUM_MOST_DETAILED_LOCATIONS', 'int'),
    (12, 'NUM_AGGREGATE_LOCATIONS', 'int');

INSERT INTO workflow_attribute_type (attribute_type, name, value_type)
    SELECT attribute_type, name, value_type FROM job_attribute_type;

INSERT INTO workflow_run_attribute_type (attribute_type, name, value_type)
    SELECT attribute_type, name, value_type FROM job_attribute_type;

INSERT INTO change_shard (change_shard)
    WITH RECURSIVE shard (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM shard WHERE n < 63)
    SELECT n FROM shard;

UPDATE schema_info SET schema_version = 2, compatible_since = 2;
