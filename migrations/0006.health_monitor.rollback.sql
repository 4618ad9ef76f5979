DROP TABLE audit_state;
DROP TABLE failing_node;
DROP TABLE monitor_check;
ALTER TABLE job_instance DROP KEY ended;
ALTER TABLE notification DROP KEY dedup_key;
ALTER TABLE notification
    DROP COLUMN message_ts,
    DROP COLUMN delivery,
    DROP COLUMN claimed_until,
    DROP COLUMN claim_token,
    DROP COLUMN next_attempt_date,
    DROP COLUMN dedup_key,
    DROP COLUMN kind;
ALTER TABLE workflow_run DROP COLUMN lost_date;
UPDATE schema_info SET schema_version = 5, compatible_since = 3;
