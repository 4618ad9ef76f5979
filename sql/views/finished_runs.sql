-- Description: The submitted live runs that have come to an end, and how: no job of their dag is queued, live, or ready to be
--   queued; DONE if all are, else ERROR. (One SELECT, so it sees all jobs at one moment: between two, a job that is
--   retried could move from a status that the second looks for to one that the first has passed.)
-- Access: internal
CREATE VIEW finished_runs AS
SELECT workflow_run.workflow_run_id, workflow_run.workflow_id, workflow.dag_id,
    IF((SELECT 1 FROM job_status STRAIGHT_JOIN job FORCE INDEX (status) ON job.status = job_status.status AND job.dag_id = workflow.dag_id
        WHERE job_status.status <> 'D' LIMIT 1) IS NULL, 'D', 'E') AS outcome
FROM workflow_run JOIN workflow ON workflow.workflow_id = workflow_run.workflow_id
WHERE workflow_run.status = 'R' AND workflow_run.submitted_date IS NOT NULL
    -- status by status, so that both parts of the index are used; and not NOT EXISTS, which may become a join with all live jobs
    AND (SELECT 1 FROM job_status STRAIGHT_JOIN job FORCE INDEX (status) ON job.status = job_status.status AND job.dag_id = workflow.dag_id
        WHERE job_status.status IN ('Q', 'I', 'R', 'E') LIMIT 1) IS NULL
    AND (SELECT 1 FROM job FORCE INDEX (status) LEFT JOIN job_gate FORCE INDEX (PRIMARY) ON job_gate.job_id = job.job_id
        WHERE job.status = 'G' AND job.dag_id = workflow.dag_id AND COALESCE(job_gate.upstreams_pending, 0) = 0 LIMIT 1) IS NULL
