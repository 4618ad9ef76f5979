-- Description: Violations of: every transition in a job's history is legal, each row goes on from the one before, and the
--   last is the job's status.
-- Access: JQS
-- Example: SELECT * FROM audit_job_history;
CREATE VIEW audit_job_history AS
SELECT history.job_id, history.job_status_log_id, history.from_status, history.status, history.previous_status
FROM (
    SELECT job_id, job_status_log_id, from_status, status,
        LAG(status) OVER (PARTITION BY job_id ORDER BY job_status_log_id) AS previous_status,
        LEAD(job_status_log_id) OVER (PARTITION BY job_id ORDER BY job_status_log_id) AS next_id
    FROM job_status_log) AS history
    LEFT JOIN job ON job.job_id = history.job_id
    LEFT JOIN job_transition ON job_transition.from_status = history.from_status
        AND job_transition.to_status = history.status
WHERE NOT (history.from_status <=> history.previous_status)
    OR (history.from_status IS NULL AND history.status <> 'G')
    OR (history.from_status IS NOT NULL AND job_transition.from_status IS NULL)
    OR (history.next_id IS NULL AND NOT (job.status <=> history.status))
