-- Description: A workflow starts in CREATED; a dag that is being pruned gets none.
CREATE TRIGGER workflow_before_insert BEFORE INSERT ON workflow FOR EACH ROW
BEGIN
    DECLARE v_dag_id BIGINT UNSIGNED;
    IF NEW.status <> 'C' THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32053,
            MESSAGE_TEXT = 'WRONG_FIRST_STATUS: a workflow starts in C (CREATED)';
    END IF;
    -- exclusively at once: the foreign key would take a shared lock, and after the look at the mark
    SELECT dag_id INTO v_dag_id FROM task_dag WHERE dag_id = NEW.dag_id FOR UPDATE;
    CALL refuse_pruned_dag(NEW.dag_id);
    SET NEW.created_date = UTC_TIMESTAMP(6), NEW.status_date = UTC_TIMESTAMP(6);
END
