-- Description: The running job instances of a dag that have passed their job's max_runtime, counted from RUNNING.
-- Access: JQS
-- Example: SELECT document FROM get_timed_out WHERE dag_id = 1;
CREATE VIEW get_timed_out AS
SELECT live.job_instance_id, job.dag_id, ji_dct.document
FROM job
    JOIN job_instance AS live ON live.job_id = job.job_id AND live.attempt_number = job.attempts_before_reset + job.num_attempts
    JOIN ji_dct ON ji_dct.job_instance_id = live.job_instance_id
WHERE job.status = 'R' AND live.status = 'R'
    AND live.running_date + INTERVAL job.max_runtime SECOND < UTC_TIMESTAMP(6)
