-- Description: Whether a workflow has a run in RUNNING, and the newest such run.
-- Access: JQS
-- Example: SELECT document FROM is_workflow_running WHERE workflow_id = 1;
CREATE VIEW is_workflow_running AS
SELECT workflow_run_dct.workflow_id, JSON_OBJECT(
    'is_running', JSON_EXTRACT('true', '$'),
    'workflow_run_dct', JSON_EXTRACT(workflow_run_dct.document, '$')) AS document
FROM workflow_run_dct
WHERE workflow_run_dct.workflow_run_id = (
    SELECT MAX(live.workflow_run_id) FROM workflow_run AS live
    WHERE live.workflow_id = workflow_run_dct.workflow_id AND live.status = 'R')
