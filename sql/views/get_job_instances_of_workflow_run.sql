-- Description: All job instances of a workflow run.
-- Access: JQS
-- Example: SELECT document FROM get_job_instances_of_workflow_run WHERE workflow_run_id = 1;
CREATE VIEW get_job_instances_of_workflow_run AS
SELECT job_instance_id, workflow_run_id, document FROM ji_dct
