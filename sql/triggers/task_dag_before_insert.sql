-- Description: A dag's heartbeat is fresh when it is made.
CREATE TRIGGER task_dag_before_insert BEFORE INSERT ON task_dag FOR EACH ROW
BEGIN
    SET NEW.created_date = UTC_TIMESTAMP(6), NEW.heartbeat_date = UTC_TIMESTAMP(6);
END
