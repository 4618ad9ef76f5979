CREATE PROCEDURE lock_workflow_run(
    in_workflow_run_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Locks a workflow run in lock order: its workflow first (a change of the run''s status touches the index of the
  foreign key, which takes a shared lock on the workflow), then the run, both exclusively.
Access: internal
Parameters:
  in_workflow_run_id: the workflow run
Errors: UNKNOWN_WORKFLOW_RUN
Example: CALL lock_workflow_run(1);
'
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_id BIGINT UNSIGNED;
    SELECT workflow_id INTO v_id FROM workflow
    WHERE workflow_id = (SELECT workflow_id FROM workflow_run WHERE workflow_run_id = in_workflow_run_id) FOR UPDATE;
    IF v_id IS NULL THEN
        SET v_text = CONCAT('UNKNOWN_WORKFLOW_RUN: there is no workflow run ', in_workflow_run_id);
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32024, MESSAGE_TEXT = v_text;
    END IF;
    SELECT workflow_run_id INTO v_id FROM workflow_run WHERE workflow_run_id = in_workflow_run_id FOR UPDATE;
END
