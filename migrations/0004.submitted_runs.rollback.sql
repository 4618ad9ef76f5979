UPDATE api_error SET hint = 'Stop that run first; add_workflow_run does.' WHERE name = 'WORKFLOW_RUN_ALIVE';
DELETE FROM api_error WHERE errno = 32045;
ALTER TABLE workflow_run DROP KEY live;
ALTER TABLE workflow_run DROP COLUMN submitted_date;
ALTER TABLE task_dag DROP COLUMN priority;
UPDATE schema_info SET schema_version = 3, compatible_since = 3;
