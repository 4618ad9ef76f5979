-- Description: Workflows for people: labels, counts of jobs, the newest run. (Counted from an index, not from the jobs' rows.)
-- Access: JQS
-- Example: SELECT * FROM workflows WHERE user = 'ann';
CREATE VIEW workflows AS
SELECT workflow.workflow_id, workflow.dag_id, workflow.name, workflow.user, LEFT(workflow.workflow_args, 255) AS workflow_args,
    workflow_status.label AS status, workflow.status_date, workflow.created_date,
    (SELECT COUNT(*) FROM job WHERE job.dag_id = workflow.dag_id) AS num_jobs,
    (SELECT COUNT(*) FROM job WHERE job.dag_id = workflow.dag_id AND job.status = 'D') AS num_done,
    (SELECT COUNT(*) FROM job WHERE job.dag_id = workflow.dag_id AND job.status = 'R') AS num_running,
    (SELECT COUNT(*) FROM job WHERE job.dag_id = workflow.dag_id AND job.status IN ('Q', 'I')) AS num_queued,
    (SELECT COUNT(*) FROM job WHERE job.dag_id = workflow.dag_id AND job.status = 'F') AS num_fatal,
    (SELECT MAX(workflow_run.workflow_run_id) FROM workflow_run WHERE workflow_run.workflow_id = workflow.workflow_id) AS newest_workflow_run_id,
    task_dag.priority, task_dag.max_concurrently_running
FROM workflow JOIN workflow_status ON workflow_status.status = workflow.status
    JOIN task_dag ON task_dag.dag_id = workflow.dag_id
