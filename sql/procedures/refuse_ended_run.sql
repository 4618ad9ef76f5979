CREATE PROCEDURE refuse_ended_run(
    in_workflow_run_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Refuses what only a live run may do, so that a client whose run was stopped or superseded leaves.
Access: internal
Parameters:
  in_workflow_run_id: a workflow run that is there; it is kept from ending until the transaction ends
Errors: WORKFLOW_RUN_ENDED
Example: CALL refuse_ended_run(1);
'
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_status CHAR(1);
    -- shared: claims for one run do not wait for each other, and none of them changes it
    SELECT status INTO v_status FROM workflow_run WHERE workflow_run_id = in_workflow_run_id LOCK IN SHARE MODE;
    IF v_status <> 'R' THEN
        SET v_text = CONCAT('WORKFLOW_RUN_ENDED: workflow run ', in_workflow_run_id, ' has ended as ', v_status, ': stop');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32044, MESSAGE_TEXT = v_text;
    END IF;
END
