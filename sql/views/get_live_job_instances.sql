-- Description: The live job instances of an executor that have a lease, with what is left of it (seconds by the database's
--   clock; below 0: lost unless it reports), for who compares them with what the scheduler has.
-- Access: JQS
-- Example: SELECT document FROM get_live_job_instances WHERE executor_type = 'SlurmExecutor' ORDER BY job_instance_id;
CREATE VIEW get_live_job_instances AS
SELECT job_instance.job_instance_id, job_instance.executor_type, JSON_OBJECT(
    'dag_id', job.dag_id,
    'executor_id', job_instance.executor_id,
    'executor_name', job_instance.executor_name,
    'job_id', job_instance.job_id,
    'job_instance_id', job_instance.job_instance_id,
    'lease_left_seconds', TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), job_instance.report_by_date) / 1000000,
    'status', job_instance.status) AS document
-- ended ones have no report_by_date: of the millions that ever were, only what is live is read
FROM job_instance FORCE INDEX (report_by_date)
    JOIN job ON job.job_id = job_instance.job_id
WHERE job_instance.report_by_date IS NOT NULL AND job_instance.status IN ('I', 'B', 'R')
