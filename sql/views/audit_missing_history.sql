-- Description: Violations of: every job and every job instance has a history.
-- Access: JQS
-- Example: SELECT * FROM audit_missing_history;
CREATE VIEW audit_missing_history AS
SELECT 'job' AS kind, job.job_id AS id FROM job
WHERE NOT EXISTS (SELECT 1 FROM job_status_log WHERE job_status_log.job_id = job.job_id)
UNION ALL
SELECT 'job_instance', job_instance.job_instance_id FROM job_instance
WHERE NOT EXISTS (
    SELECT 1 FROM job_instance_status_log WHERE job_instance_status_log.job_instance_id = job_instance.job_instance_id)
