CREATE PROCEDURE find_dag_of_run(
    in_workflow_run_id BIGINT UNSIGNED,
    OUT out_dag_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    READS SQL DATA
    COMMENT '
Description: The dag of a workflow run. (It never changes, so it may be looked up before anything is locked.)
Access: internal
Parameters:
  in_workflow_run_id: the workflow run
  out_dag_id: its dag
Errors: MISSING_PARAMETER, UNKNOWN_WORKFLOW_RUN
Example: CALL find_dag_of_run(1, v_dag_id);
'
BEGIN
    DECLARE v_text VARCHAR(127);
    IF in_workflow_run_id IS NULL THEN
        CALL raise_missing_parameter('workflow_run_id');
    END IF;
    SET out_dag_id = NULL;
    SELECT workflow.dag_id INTO out_dag_id
    FROM workflow_run JOIN workflow ON workflow.workflow_id = workflow_run.workflow_id
    WHERE workflow_run.workflow_run_id = in_workflow_run_id;
    IF out_dag_id IS NULL THEN
        SET v_text = CONCAT('UNKNOWN_WORKFLOW_RUN: there is no workflow run ', in_workflow_run_id);
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32024, MESSAGE_TEXT = v_text;
    END IF;
END
