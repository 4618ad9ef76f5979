CREATE FUNCTION newest_workflow_run(
    in_dag_id BIGINT UNSIGNED
)
    RETURNS BIGINT UNSIGNED
    SQL SECURITY DEFINER
    NOT DETERMINISTIC
    READS SQL DATA
    COMMENT '
Description: The workflow run that a new job instance belongs to: the newest one of the dag''s first workflow.
Access: internal
Parameters:
  in_dag_id: the dag
Returns: the run; NULL: the dag has no workflow, or that has no run
Example: SELECT newest_workflow_run(1);
'
BEGIN
    DECLARE v_workflow_run_id BIGINT UNSIGNED;
    -- not RETURN (SELECT ...): outside of a SELECT, InnoDB reads with a shared lock
    SELECT MAX(workflow_run_id) INTO v_workflow_run_id FROM workflow_run
    WHERE workflow_id = (SELECT MIN(workflow_id) FROM workflow WHERE dag_id = in_dag_id);
    RETURN v_workflow_run_id;
END
