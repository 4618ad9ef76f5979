-- Description: Violations of: num_attempts is the count of instances since the last reset.
-- Access: JQS
-- Example: SELECT * FROM audit_num_attempts;
CREATE VIEW audit_num_attempts AS
SELECT job.job_id, job.num_attempts, job.attempts_before_reset, COALESCE(counted.num_instances, 0) AS num_instances
FROM job
    LEFT JOIN (SELECT job_id, COUNT(*) AS num_instances, MAX(attempt_number) AS newest FROM job_instance GROUP BY job_id) AS counted
        ON counted.job_id = job.job_id
WHERE job.num_attempts + job.attempts_before_reset <> COALESCE(counted.num_instances, 0)
    OR job.num_attempts + job.attempts_before_reset <> COALESCE(counted.newest, 0)
