-- Description: What is never changed; dates and leases by the database's clock. Whether a change of status is legal is
--   decided in job_instance_after_update.
CREATE TRIGGER job_instance_before_update BEFORE UPDATE ON job_instance FOR EACH ROW
BEGIN
    IF NEW.job_instance_id <> OLD.job_instance_id OR NEW.job_id <> OLD.job_id
        OR NEW.attempt_number <> OLD.attempt_number OR NEW.created_date <> OLD.created_date
    THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32050,
            MESSAGE_TEXT = 'IMMUTABLE_COLUMN: ids, attempt_number and created_date of a job instance are never changed';
    END IF;
    IF NEW.status = OLD.status THEN
        SET NEW.exceeded = OLD.exceeded, NEW.status_date = OLD.status_date, NEW.submitted_date = OLD.submitted_date,
            NEW.running_date = OLD.running_date, NEW.ended_date = OLD.ended_date;
    ELSE
        IF NOT (NEW.exceeded <=> OLD.exceeded) AND NEW.exceeded IS NOT NULL AND (NEW.status <> 'Z' OR NEW.exceeded NOT IN ('mem_free', 'max_runtime')) THEN
            SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002,
                MESSAGE_TEXT = 'INVALID_PARAMETER: exceeded must be mem_free or max_runtime, and goes with Z (RESOURCE_ERROR) only';
        END IF;
        -- the clock may have been set back
        SET NEW.status_date = GREATEST(OLD.status_date, UTC_TIMESTAMP(6));
        IF NEW.status IN ('B', 'R') THEN
            SET NEW.submitted_date = IF(NEW.status = 'B', NEW.status_date, OLD.submitted_date),
                NEW.running_date = IF(NEW.status = 'R', NEW.status_date, OLD.running_date),
                -- a report renews the lease; an instance whose client renews none was watched while INSTANTIATED only
                NEW.report_by_date = UTC_TIMESTAMP(6) + INTERVAL NEW.lease_seconds SECOND;
        ELSE
            SET NEW.ended_date = NEW.status_date, NEW.report_by_date = NULL;
            IF NEW.status <> 'D' AND NEW.error_message IS NULL THEN
                SET NEW.error_message = '(no error message was given)';
            END IF;
        END IF;
    END IF;
END
