CREATE PROCEDURE end_run_if_finished(
    in_workflow_run_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Ends a run of finished_runs, and its workflow. Not done by the report that ends the last job: of two such reports at once
  neither sees the other.
Access: internal
Parameters:
  in_workflow_run_id: the workflow run
Errors: UNKNOWN_WORKFLOW_RUN
Example: CALL end_run_if_finished(1);
'
BEGIN
    DECLARE v_workflow_id, v_dag_id BIGINT UNSIGNED;
    DECLARE v_outcome, v_status CHAR(1);
    DECLARE v_num_left INT UNSIGNED;
    CALL lock_workflow_run(in_workflow_run_id);
    SELECT workflow_id, dag_id, outcome INTO v_workflow_id, v_dag_id, v_outcome FROM finished_runs WHERE workflow_run_id = in_workflow_run_id;
    IF v_outcome IS NOT NULL THEN
        -- a caller's own transaction may have an old picture, and a DONE workflow is final: locking reads see the present
        SELECT status INTO v_status FROM workflow_run WHERE workflow_run_id = in_workflow_run_id FOR UPDATE;
        SELECT COUNT(*) INTO v_num_left FROM (
            SELECT 1 FROM job FORCE INDEX (status)
            WHERE dag_id = v_dag_id AND status IN ('Q', 'I', 'R', 'E', IF(v_outcome = 'D', 'G', 'E'), IF(v_outcome = 'D', 'F', 'E'))
            LIMIT 1 LOCK IN SHARE MODE) AS live;
        IF v_status = 'R' AND v_num_left = 0 THEN
            UPDATE workflow_run SET status = v_outcome WHERE workflow_run_id = in_workflow_run_id;
            -- one that somebody has set to DONE stays so, and does not keep its run from ending
            UPDATE workflow SET status = v_outcome WHERE workflow_id = v_workflow_id AND status <> 'D';
        END IF;
    END IF;
END
