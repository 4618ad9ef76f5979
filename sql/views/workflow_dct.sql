-- Description: Workflows as the wire protocol shows them (workflow_dct).
-- Access: internal
CREATE VIEW workflow_dct AS
SELECT workflow_id, dag_id, JSON_OBJECT(
    'dag_id', dag_id,
    'description', description,
    'id', workflow_id,
    'name', name,
    'status', status,
    'user', user,
    'workflow_args', workflow_args,
    'workflow_hash', workflow_hash) AS document
FROM workflow
