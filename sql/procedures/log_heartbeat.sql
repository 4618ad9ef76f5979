CREATE PROCEDURE log_heartbeat(
    in_dag_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: A client of this dag is alive: moves the heartbeat of the dag and of its workflow''s live run. An unknown dag is no error (emu).
Access: JSM
Parameters:
  in_dag_id: the dag
Returns: {}
Errors: MISSING_PARAMETER
Example: CALL log_heartbeat(1);
'
BEGIN
    DECLARE v_workflow_run_id BIGINT UNSIGNED;
    DECLARE v_owns BOOLEAN;
    DECLARE EXIT HANDLER FOR SQLEXCEPTION
    BEGIN
        IF v_owns THEN
            ROLLBACK;
        ELSEIF NOT v_owns THEN
            CALL undo_work();
        END IF;
        RESIGNAL;
    END;
    IF in_dag_id IS NULL THEN
        CALL raise_missing_parameter('dag_id');
    END IF;
    CALL begin_work(v_owns);
    UPDATE task_dag SET heartbeat_date = UTC_TIMESTAMP(6) WHERE dag_id = in_dag_id;
    SELECT MAX(workflow_run.workflow_run_id) INTO v_workflow_run_id
    FROM workflow JOIN workflow_run ON workflow_run.workflow_id = workflow.workflow_id
    WHERE workflow.dag_id = in_dag_id AND workflow_run.status = 'R';
    -- tested again: it may have ended in between; and by primary key, which others lock first: the index of live runs has the
    -- id in it, too, and its entry changes when a run ends
    UPDATE workflow_run FORCE INDEX (PRIMARY) SET heartbeat_date = UTC_TIMESTAMP(6)
    WHERE workflow_run_id = v_workflow_run_id AND status = 'R';
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT '{}' AS document;
END
