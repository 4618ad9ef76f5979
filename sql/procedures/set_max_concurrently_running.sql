CREATE PROCEDURE set_max_concurrently_running(
    in_workflow_id BIGINT UNSIGNED,
    in_max_concurrently_running INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Limits how many job instances of a workflow are live at a time. What is live already is left alone.
Access: JSM
Parameters:
  in_workflow_id: the workflow
  in_max_concurrently_running: the limit; left out: none
Returns: {"workflow_id": n, "max_concurrently_running": n or null}
Errors: MISSING_PARAMETER, UNKNOWN_WORKFLOW
Example: CALL set_max_concurrently_running(1, 50);
'
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_dag_id BIGINT UNSIGNED;
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
    IF in_workflow_id IS NULL THEN
        CALL raise_missing_parameter('workflow_id');
    END IF;
    CALL begin_work(v_owns);
    SELECT dag_id INTO v_dag_id FROM workflow WHERE workflow_id = in_workflow_id;
    IF v_dag_id IS NULL THEN
        SET v_text = CONCAT('UNKNOWN_WORKFLOW: there is no workflow ', in_workflow_id);
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32023, MESSAGE_TEXT = v_text;
    END IF;
    UPDATE task_dag SET max_concurrently_running = in_max_concurrently_running WHERE dag_id = v_dag_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('max_concurrently_running', in_max_concurrently_running + 0, 'workflow_id', in_workflow_id + 0) AS document;
END
