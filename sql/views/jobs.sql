-- Description: Jobs for people: labels instead of letters, the newest attempt, durations in seconds.
-- Access: JQS
-- Example: SELECT * FROM jobs WHERE workflow_id = 1 AND status = 'ERROR_FATAL';
CREATE VIEW jobs AS
SELECT job.job_id, job.dag_id, workflow.workflow_id, job.name, job.tag, job_status.label AS status,
    job.num_attempts, job.max_attempts, job.status_date,
    TIMESTAMPDIFF(MICROSECOND, job.status_date, UTC_TIMESTAMP(6)) / 1000000 AS seconds_in_status,
    TIMESTAMPDIFF(MICROSECOND, newest.running_date, COALESCE(newest.ended_date, UTC_TIMESTAMP(6))) / 1000000 AS run_seconds,
    newest.job_instance_id AS newest_job_instance_id, newest.nodename, newest.executor_id,
    LEFT(newest.error_message, 1000) AS last_error, job_gate.upstreams_pending, job.slots, job.mem_free, job.max_runtime,
    LEFT(job.command, 1000) AS command, job.created_date, job.mem_free_scale, job.max_runtime_scale
FROM job
    JOIN job_status ON job_status.status = job.status
    -- its dag's first one
    LEFT JOIN workflow ON workflow.dag_id = job.dag_id
        AND workflow.workflow_id = (SELECT MIN(same_dag.workflow_id) FROM workflow AS same_dag WHERE same_dag.dag_id = workflow.dag_id)
    LEFT JOIN job_gate ON job_gate.job_id = job.job_id
    LEFT JOIN job_instance AS newest ON newest.job_id = job.job_id
        AND newest.attempt_number = job.attempts_before_reset + job.num_attempts
