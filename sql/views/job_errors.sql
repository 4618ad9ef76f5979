-- Description: Every error and every warning of every attempt, newest last.
-- Access: JQS
-- Example: SELECT * FROM job_errors WHERE job_id = 1;
CREATE VIEW job_errors AS
SELECT job_instance_error_log.job_instance_error_log_id, job_instance.job_id, job.dag_id, job.name,
    job_instance.job_instance_id, job_instance.attempt_number, job_instance.nodename,
    job_instance_error_log.error_time, job_instance_error_log.description,
    job_instance_error_log.severity
FROM job_instance_error_log
    JOIN job_instance ON job_instance.job_instance_id = job_instance_error_log.job_instance_id
    JOIN job ON job.job_id = job_instance.job_id
