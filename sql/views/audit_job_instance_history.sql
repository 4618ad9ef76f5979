-- Description: Violations of: every transition in a job instance's history is legal, each row goes on from the one before,
--   and the last is the instance's status.
-- Access: JQS
-- Example: SELECT * FROM audit_job_instance_history;
CREATE VIEW audit_job_instance_history AS
SELECT history.job_instance_id, history.job_instance_status_log_id, history.from_status, history.status, history.previous_status
FROM (
    SELECT job_instance_id, job_instance_status_log_id, from_status, status,
        LAG(status) OVER (PARTITION BY job_instance_id ORDER BY job_instance_status_log_id) AS previous_status,
        LEAD(job_instance_status_log_id) OVER (PARTITION BY job_instance_id ORDER BY job_instance_status_log_id) AS next_id
    FROM job_instance_status_log) AS history
    LEFT JOIN job_instance ON job_instance.job_instance_id = history.job_instance_id
    LEFT JOIN job_instance_transition ON job_instance_transition.from_status = history.from_status
        AND job_instance_transition.to_status = history.status
WHERE NOT (history.from_status <=> history.previous_status)
    OR (history.from_status IS NULL AND history.status <> 'I')
    OR (history.from_status IS NOT NULL AND job_instance_transition.from_status IS NULL)
    OR (history.next_id IS NULL AND NOT (job_instance.status <=> history.status))
