-- Description: History is append-only.
CREATE TRIGGER job_instance_status_log_before_update BEFORE UPDATE ON job_instance_status_log FOR EACH ROW
BEGIN
    SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32051, MESSAGE_TEXT = 'APPEND_ONLY: job_instance_status_log is history and is never changed';
END
