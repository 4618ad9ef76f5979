-- Description: Violations of: a job's status agrees with its newest instance.
-- Access: JQS
-- Example: SELECT * FROM audit_job_follows_instance;
CREATE VIEW audit_job_follows_instance AS
SELECT job.job_id, job.status, newest.job_instance_id, newest.status AS job_instance_status
FROM job
    LEFT JOIN job_instance AS newest ON newest.job_id = job.job_id
        AND newest.attempt_number = job.attempts_before_reset + job.num_attempts
WHERE NOT CASE job.status
    WHEN 'I' THEN COALESCE(newest.status IN ('I', 'B'), FALSE)
    WHEN 'R' THEN COALESCE(newest.status = 'R', FALSE)
    WHEN 'D' THEN COALESCE(newest.status = 'D', FALSE)
    WHEN 'F' THEN COALESCE(newest.status IN ('E', 'W', 'Z', 'U'), FALSE)
    -- after a reset the newest instance may be one that was DONE
    WHEN 'G' THEN COALESCE(newest.status IN ('E', 'W', 'Z', 'U', 'D'), TRUE)
    WHEN 'Q' THEN COALESCE(newest.status IN ('E', 'W', 'Z', 'U', 'D'), TRUE)
    -- ERROR_RECOVERABLE is passed through, never rested in
    ELSE FALSE END
