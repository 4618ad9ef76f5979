CREATE PROCEDURE lock_workflow(
    in_workflow_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Locks a workflow, exclusively, before its runs and attributes: foreign keys would take a shared lock on it.
Access: internal
Parameters:
  in_workflow_id: the workflow
Errors: UNKNOWN_WORKFLOW
Example: CALL lock_workflow(1);
'
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_workflow_id BIGINT UNSIGNED;
    SELECT workflow_id INTO v_workflow_id FROM workflow WHERE workflow_id = in_workflow_id FOR UPDATE;
    IF v_workflow_id IS NULL THEN
        SET v_text = CONCAT('UNKNOWN_WORKFLOW: there is no workflow ', in_workflow_id);
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32023, MESSAGE_TEXT = v_text;
    END IF;
END
