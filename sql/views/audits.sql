-- Description: What the health monitor last read in each audit view: violated_since must be null everywhere.
-- Access: JQS
-- Example: SELECT * FROM audits WHERE violated_since IS NOT NULL;
CREATE VIEW audits AS
SELECT audit, check_date, GREATEST(TIMESTAMPDIFF(SECOND, check_date, UTC_TIMESTAMP(6)), 0) AS seconds_since_check,
    num_violations, violated_since, sample
FROM audit_state
