-- Description: The workflow of a dag with these workflow_args.
-- Access: JQS
-- Example: SELECT document FROM get_workflows_by_inputs WHERE dag_id = 1 AND workflow_args = 'v1';
CREATE VIEW get_workflows_by_inputs AS
SELECT workflow.workflow_id, workflow.dag_id, workflow.workflow_args,
    JSON_OBJECT('workflow_dct', JSON_EXTRACT(workflow_dct.document, '$')) AS document
FROM workflow JOIN workflow_dct ON workflow_dct.workflow_id = workflow.workflow_id
