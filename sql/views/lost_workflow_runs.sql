-- Description: The workflow runs that were taken for lost, when, and what has become of them: a run that comes back may still
--   report its end.
-- Access: JQS
-- Example: SELECT * FROM lost_workflow_runs ORDER BY lost_date DESC LIMIT 10;
CREATE VIEW lost_workflow_runs AS
SELECT workflow_run.workflow_run_id, workflow_run.workflow_id, workflow.name, workflow_run.user, workflow_run.hostname,
    workflow_run.pid, workflow_run.slack_channel, workflow_run_status.label AS status, workflow_run.heartbeat_date,
    workflow_run.lost_date
FROM workflow_run
    JOIN workflow ON workflow.workflow_id = workflow_run.workflow_id
    JOIN workflow_run_status ON workflow_run_status.status = workflow_run.status
WHERE workflow_run.lost_date IS NOT NULL
