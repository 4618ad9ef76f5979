-- Description: The job instances of a dag that are with the batch executor or run.
-- Access: JQS
-- Example: SELECT document FROM get_submitted_or_running WHERE dag_id = 1;
CREATE VIEW get_submitted_or_running AS
SELECT live.job_instance_id, job.dag_id, ji_dct.document
FROM job
    -- a live instance is its job's newest one, and its job is in I or R: few rows, found by index
    JOIN job_instance AS live ON live.job_id = job.job_id AND live.attempt_number = job.attempts_before_reset + job.num_attempts
    JOIN ji_dct ON ji_dct.job_instance_id = live.job_instance_id
WHERE job.status IN ('I', 'R') AND live.status IN ('B', 'R')
