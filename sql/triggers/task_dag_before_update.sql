-- Description: A heartbeat never moves backward.
CREATE TRIGGER task_dag_before_update BEFORE UPDATE ON task_dag FOR EACH ROW
BEGIN
    IF NEW.dag_id <> OLD.dag_id OR NEW.dag_hash <> OLD.dag_hash OR NEW.created_date <> OLD.created_date THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32050,
            MESSAGE_TEXT = 'IMMUTABLE_COLUMN: dag_id, dag_hash and created_date of a task dag are never changed';
    END IF;
    SET NEW.heartbeat_date = GREATEST(OLD.heartbeat_date, NEW.heartbeat_date);
END
