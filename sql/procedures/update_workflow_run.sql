CREATE PROCEDURE update_workflow_run(
    in_wfr_id BIGINT UNSIGNED,
    in_workflow_run_id BIGINT UNSIGNED,
    in_status VARCHAR(64)
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Sets a workflow run''s status.
Access: JSM
Parameters:
  in_wfr_id: the workflow run
  in_workflow_run_id: another name of wfr_id, used once by emu clients
  in_status: a letter of workflow_run_status
Returns: {"status": letter}
Errors: MISSING_PARAMETER, UNKNOWN_STATUS, UNKNOWN_WORKFLOW_RUN, ILLEGAL_TRANSITION, WORKFLOW_RUN_ENDED
Example: CALL update_workflow_run(1, NULL, ''D'');
'
BEGIN
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
    IF in_status IS NULL THEN
        CALL raise_missing_parameter('status');
    END IF;
    CALL begin_work(v_owns);
    IF COALESCE(in_wfr_id, in_workflow_run_id) IS NULL THEN
        CALL raise_missing_parameter('wfr_id');
    END IF;
    IF NOT EXISTS (SELECT 1 FROM workflow_run_status WHERE status = in_status) THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32005, MESSAGE_TEXT = 'UNKNOWN_STATUS: this is no letter of workflow_run_status';
    END IF;
    CALL lock_workflow_run(COALESCE(in_wfr_id, in_workflow_run_id));
    UPDATE workflow_run SET status = in_status WHERE workflow_run_id = COALESCE(in_wfr_id, in_workflow_run_id);
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('status', in_status) AS document;
END
