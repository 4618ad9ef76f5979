CREATE PROCEDURE update_workflow(
    in_wf_id BIGINT UNSIGNED,
    in_status VARCHAR(64)
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Sets a workflow''s status.
Access: JSM
Parameters:
  in_wf_id: the workflow
  in_status: a letter of workflow_status
Returns: {"workflow_dct": {...}}
Errors: MISSING_PARAMETER, UNKNOWN_STATUS, UNKNOWN_WORKFLOW, ILLEGAL_TRANSITION
Example: CALL update_workflow(1, ''D'');
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
    IF in_wf_id IS NULL THEN
        CALL raise_missing_parameter('wf_id');
    END IF;
    IF in_status IS NULL THEN
        CALL raise_missing_parameter('status');
    END IF;
    CALL begin_work(v_owns);
    IF NOT EXISTS (SELECT 1 FROM workflow_status WHERE status = in_status) THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32005, MESSAGE_TEXT = 'UNKNOWN_STATUS: this is no letter of workflow_status';
    END IF;
    CALL lock_workflow(in_wf_id);
    UPDATE workflow SET status = in_status WHERE workflow_id = in_wf_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('workflow_dct', JSON_EXTRACT(document, '$')) AS document FROM workflow_dct WHERE workflow_id = in_wf_id;
END
