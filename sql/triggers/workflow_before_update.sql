-- Description: The workflow state machine, for every writer.
CREATE TRIGGER workflow_before_update BEFORE UPDATE ON workflow FOR EACH ROW
BEGIN
    DECLARE v_text VARCHAR(127);
    IF NEW.workflow_id <> OLD.workflow_id OR NEW.dag_id <> OLD.dag_id OR NEW.workflow_args <> OLD.workflow_args
        OR NEW.workflow_hash <> OLD.workflow_hash OR NEW.created_date <> OLD.created_date
    THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32050,
            MESSAGE_TEXT = 'IMMUTABLE_COLUMN: ids, args, hash and created_date of a workflow are never changed';
    END IF;
    IF NEW.status = OLD.status THEN
        SET NEW.status_date = OLD.status_date;
    ELSE
        IF NOT EXISTS (SELECT 1 FROM workflow_transition WHERE from_status = OLD.status AND to_status = NEW.status) THEN
            SET v_text = CONCAT('ILLEGAL_TRANSITION: workflow ', OLD.workflow_id, ' cannot go from ', OLD.status, ' to ', COALESCE(NEW.status, 'NULL'));
            SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32030, MESSAGE_TEXT = v_text;
        END IF;
        SET NEW.status_date = GREATEST(OLD.status_date, UTC_TIMESTAMP(6));
    END IF;
END
