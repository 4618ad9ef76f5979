-- Description: Violations of: no two live instances of one job, and only the newest is live.
-- Access: JQS
-- Example: SELECT * FROM audit_one_live_instance;
CREATE VIEW audit_one_live_instance AS
SELECT job_instance.job_id, job_instance.job_instance_id, job_instance.attempt_number, job_instance.status
FROM job_instance JOIN job ON job.job_id = job_instance.job_id
WHERE job_instance.status IN ('I', 'B', 'R')
    AND (job.status NOT IN ('I', 'R') OR job_instance.attempt_number <> job.attempts_before_reset + job.num_attempts)
