-- Description: Workflow runs for people: labels instead of letters, how long they ran, how old the heartbeat is.
-- Access: JQS
-- Example: SELECT * FROM workflow_runs WHERE status = 'RUNNING';
CREATE VIEW workflow_runs AS
SELECT workflow_run.workflow_run_id, workflow_run.workflow_id, workflow.name, workflow_run.user, workflow_run.hostname,
    workflow_run.pid, workflow_run_status.label AS status, workflow_run.status_date, workflow_run.created_date,
    TIMESTAMPDIFF(MICROSECOND, workflow_run.created_date, IF(workflow_run.status = 'R', UTC_TIMESTAMP(6), workflow_run.status_date)) / 1000000 AS run_seconds,
    TIMESTAMPDIFF(MICROSECOND, workflow_run.heartbeat_date, UTC_TIMESTAMP(6)) / 1000000 AS seconds_since_heartbeat,
    workflow_run.slack_channel, workflow_run.project, workflow_run.working_dir,
    workflow_run.stdout, workflow_run.stderr, workflow_run.executor_class, workflow_run.submitted_date, workflow_run.lost_date
FROM workflow_run
    JOIN workflow ON workflow.workflow_id = workflow_run.workflow_id
    JOIN workflow_run_status ON workflow_run_status.status = workflow_run.status
