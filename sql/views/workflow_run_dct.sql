-- Description: Workflow runs as the wire protocol shows them (workflow_run_dct).
-- Access: internal
CREATE VIEW workflow_run_dct AS
SELECT workflow_run_id, workflow_id, status, JSON_OBJECT(
    'executor_class', executor_class,
    'hostname', hostname,
    'id', workflow_run_id,
    'pid', pid,
    'project', project,
    'slack_channel', slack_channel,
    'status', status,
    'stderr', stderr,
    'stdout', stdout,
    'user', user,
    'workflow_id', workflow_id,
    'working_dir', working_dir) AS document
FROM workflow_run
