-- Description: The workflow run state machine, for every writer.
CREATE TRIGGER workflow_run_before_update BEFORE UPDATE ON workflow_run FOR EACH ROW
BEGIN
    DECLARE v_text VARCHAR(127);
    IF NEW.workflow_run_id <> OLD.workflow_run_id OR NEW.workflow_id <> OLD.workflow_id
        OR NEW.created_date <> OLD.created_date
    THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32050,
            MESSAGE_TEXT = 'IMMUTABLE_COLUMN: ids and created_date of a workflow run are never changed';
    END IF;
    SET NEW.heartbeat_date = GREATEST(OLD.heartbeat_date, NEW.heartbeat_date);
    IF NEW.status = OLD.status THEN
        SET NEW.status_date = OLD.status_date;
    ELSE
        IF NOT EXISTS (SELECT 1 FROM workflow_run_transition WHERE from_status = OLD.status AND to_status = NEW.status) THEN
            IF EXISTS (SELECT 1 FROM workflow_run_transition WHERE from_status = OLD.status)
                OR NOT EXISTS (SELECT 1 FROM workflow_run_status WHERE status = NEW.status)
            THEN
                SET v_text = CONCAT('ILLEGAL_TRANSITION: workflow run ', OLD.workflow_run_id, ' cannot go from ', OLD.status, ' to ', COALESCE(NEW.status, 'NULL'));
                SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32030, MESSAGE_TEXT = v_text;
            END IF;
            SET v_text = CONCAT('WORKFLOW_RUN_ENDED: workflow run ', OLD.workflow_run_id, ' has ended as ', OLD.status, ': stop');
            SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32044, MESSAGE_TEXT = v_text;
        END IF;
        SET NEW.status_date = GREATEST(OLD.status_date, UTC_TIMESTAMP(6));
    END IF;
END
