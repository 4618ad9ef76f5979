-- Description: Why a job is not running, or what it is doing: one row for each reason.
-- Access: JQS
-- Example: SELECT reason, explanation FROM job_explanations WHERE job_id = 1;
CREATE VIEW job_explanations AS
SELECT job.job_id, job.dag_id, job.name, job_status.label AS status, 'WAITS_FOR_UPSTREAM' AS reason,
    CONCAT('waits for job ', upstream.job_id, ' (', upstream.name, '), which is ', upstream_status.label,
        IF(upstream.status = 'F', ': retry it, or reset it', '')) AS explanation
FROM job
    JOIN job_status ON job_status.status = job.status
    JOIN job_edge ON job_edge.downstream_job_id = job.job_id
    JOIN job AS upstream ON upstream.job_id = job_edge.upstream_job_id
    JOIN job_status AS upstream_status ON upstream_status.status = upstream.status
WHERE job.status = 'G' AND upstream.status <> 'D'
UNION ALL
SELECT job.job_id, job.dag_id, job.name, job_status.label, 'NOT_SUBMITTED', 'all of its upstreams are DONE, but its run has not queued it: was the run submitted?'
FROM job
    JOIN job_status ON job_status.status = job.status
    LEFT JOIN job_gate ON job_gate.job_id = job.job_id
WHERE job.status = 'G' AND COALESCE(job_gate.upstreams_pending, 0) = 0
UNION ALL
SELECT job.job_id, job.dag_id, job.name, job_status.label,
    CASE WHEN workflow.workflow_id IS NOT NULL AND live_run.workflow_run_id IS NULL THEN 'NO_LIVE_RUN'
        WHEN task_dag.max_concurrently_running <= COALESCE(live.num_live, 0) THEN 'AT_LIMIT'
        ELSE 'WAITS_FOR_DISTRIBUTOR' END,
    CASE WHEN workflow.workflow_id IS NOT NULL AND live_run.workflow_run_id IS NULL
            THEN CONCAT('queued, but workflow ', workflow.workflow_id, ' is ', workflow_status.label, ' and has no run that lives: resume it')
        WHEN task_dag.max_concurrently_running <= COALESCE(live.num_live, 0)
            THEN CONCAT('queued, and ', COALESCE(live.num_live, 0), ' jobs of its dag are live; max_concurrently_running is ', task_dag.max_concurrently_running)
        ELSE CONCAT('queued since ', DATE_FORMAT(job.status_date, '%Y-%m-%d %H:%i:%s'), ' UTC; no distributor has claimed it yet',
            IF(job.num_attempts > 0, CONCAT(' (attempt ', job.num_attempts + 1, ' of ', job.max_attempts, ')'), '')) END
FROM job
    JOIN job_status ON job_status.status = job.status
    LEFT JOIN task_dag ON task_dag.dag_id = job.dag_id
    -- counted once for all dags, from what is live now; not for each job that waits
    LEFT JOIN (SELECT dag_id, COUNT(*) AS num_live FROM job FORCE INDEX (status) WHERE status IN ('I', 'R') GROUP BY dag_id) AS live
        ON live.dag_id = job.dag_id
    -- its dag's first one
    LEFT JOIN workflow ON workflow.dag_id = job.dag_id
        AND workflow.workflow_id = (SELECT MIN(same_dag.workflow_id) FROM workflow AS same_dag WHERE same_dag.dag_id = workflow.dag_id)
    LEFT JOIN workflow_status ON workflow_status.status = workflow.status
    LEFT JOIN workflow_run AS live_run ON live_run.workflow_id = workflow.workflow_id AND live_run.status = 'R'
WHERE job.status = 'Q'
UNION ALL
SELECT job.job_id, job.dag_id, job.name, job_status.label,
    CASE job.status WHEN 'I' THEN 'STARTING' WHEN 'R' THEN 'RUNNING' WHEN 'D' THEN 'DONE' ELSE 'FAILED' END,
    CASE job.status
        WHEN 'I' THEN CONCAT('attempt ', newest.attempt_number, ' was given to ', newest.executor_type,
            COALESCE(CONCAT(' (', newest.executor_id, ')'), ''), ' at ', DATE_FORMAT(newest.created_date, '%Y-%m-%d %H:%i:%s'), ' UTC and has not reported running yet',
            COALESCE(CONCAT('; the newest warning: ', LEFT((
                SELECT warning.description FROM job_instance_error_log AS warning
                WHERE warning.job_instance_id = newest.job_instance_id AND warning.severity = 'warning'
                ORDER BY warning.job_instance_error_log_id DESC LIMIT 1), 1000)), ''))
        WHEN 'R' THEN CONCAT('attempt ', newest.attempt_number, ' runs since ', DATE_FORMAT(newest.running_date, '%Y-%m-%d %H:%i:%s'), ' UTC on ',
            COALESCE(newest.nodename, 'an unknown host'), COALESCE(CONCAT(', process group ', newest.process_group_id), ''),
            COALESCE(CONCAT('; the newest warning: ', LEFT((
                SELECT warning.description FROM job_instance_error_log AS warning
                WHERE warning.job_instance_id = newest.job_instance_id AND warning.severity = 'warning'
                ORDER BY warning.job_instance_error_log_id DESC LIMIT 1), 1000)), ''))
        WHEN 'D' THEN CONCAT('ended well at ', DATE_FORMAT(job.status_date, '%Y-%m-%d %H:%i:%s'), ' UTC')
        ELSE CONCAT('failed ', job.num_attempts, ' of ', job.max_attempts, ' attempts; the last error: ', LEFT(COALESCE(newest.error_message, ''), 1000)) END
FROM job
    JOIN job_status ON job_status.status = job.status
    LEFT JOIN job_instance AS newest ON newest.job_id = job.job_id
        AND newest.attempt_number = job.attempts_before_reset + job.num_attempts
WHERE job.status IN ('I', 'R', 'D', 'E', 'F')
