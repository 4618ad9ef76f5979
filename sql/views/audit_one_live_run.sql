-- Description: Violations of: a workflow has at most one run in RUNNING, the newest.
-- Access: JQS
-- Example: SELECT * FROM audit_one_live_run;
CREATE VIEW audit_one_live_run AS
SELECT workflow_run.workflow_id, workflow_run.workflow_run_id
FROM workflow_run JOIN workflow_run AS newer ON newer.workflow_id = workflow_run.workflow_id
    AND newer.workflow_run_id > workflow_run.workflow_run_id
WHERE workflow_run.status = 'R'
