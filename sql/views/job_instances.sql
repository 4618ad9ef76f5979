-- Description: Job instances for people: labels instead of letters, seconds queued and run.
-- Access: JQS
-- Example: SELECT * FROM job_instances WHERE job_id = 1;
CREATE VIEW job_instances AS
SELECT job_instance.job_instance_id, job_instance.job_id, job.dag_id, job.name, job_instance.attempt_number,
    job_instance_status.label AS status, job_instance.status_date,
    TIMESTAMPDIFF(MICROSECOND, job_instance.created_date, COALESCE(job_instance.running_date, job_instance.ended_date, UTC_TIMESTAMP(6))) / 1000000 AS wait_seconds,
    TIMESTAMPDIFF(MICROSECOND, job_instance.running_date, COALESCE(job_instance.ended_date, UTC_TIMESTAMP(6))) / 1000000 AS run_seconds,
    job_instance.executor_type, job_instance.executor_id, job_instance.nodename, job_instance.process_group_id,
    job_instance.wallclock, job_instance.maxvmem, job_instance.cpu, job_instance.io,
    LEFT(job_instance.error_message, 1000) AS error_message, job_instance.report_by_date, job_instance.workflow_run_id,
    job_instance.executor_name, job_instance.exceeded
FROM job_instance
    JOIN job ON job.job_id = job_instance.job_id
    JOIN job_instance_status ON job_instance_status.status = job_instance.status
