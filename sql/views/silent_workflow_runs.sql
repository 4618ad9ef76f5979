-- Description: The live runs, for how long nothing was heard of them, and whether that is a bad sign. It is (expects_heartbeats)
--   while a client is to be heard: one that queues and ends its run itself, or waits for its own distributor. A run that
--   was handed over to distributors waits for them as long as it must.
-- Access: JQS
-- Example: SELECT * FROM silent_workflow_runs WHERE silent_seconds > 300;
CREATE VIEW silent_workflow_runs AS
SELECT workflow_run.workflow_run_id, workflow_run.workflow_id, workflow.dag_id, workflow.name, workflow_run.user, workflow_run.hostname,
    workflow_run.pid, workflow_run.slack_channel, workflow_run.heartbeat_date,
    GREATEST(TIMESTAMPDIFF(SECOND, workflow_run.heartbeat_date, UTC_TIMESTAMP(6)), 0) AS silent_seconds,
    IF(workflow_run.submitted_date IS NULL OR workflow_run.executor_class IS NOT NULL, 1, 0) AS expects_heartbeats
FROM workflow_run JOIN workflow ON workflow.workflow_id = workflow_run.workflow_id
WHERE workflow_run.status = 'R'
