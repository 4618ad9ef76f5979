-- Description: A job starts in REGISTERED and without attempts, whoever writes it.
CREATE TRIGGER job_before_insert BEFORE INSERT ON job FOR EACH ROW
BEGIN
    IF NEW.status <> 'G' THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32053,
            MESSAGE_TEXT = 'WRONG_FIRST_STATUS: a job starts in G (REGISTERED)';
    END IF;
    IF NEW.num_attempts <> 0 OR NEW.attempts_before_reset <> 0 OR NEW.has_downstreams <> 0 THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32052,
            MESSAGE_TEXT = 'COUNTED_COLUMN: num_attempts, attempts_before_reset and has_downstreams are counted by triggers';
    END IF;
    IF NEW.mem_free_scale < 0 OR NEW.max_runtime_scale < 0 THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002,
            MESSAGE_TEXT = 'INVALID_PARAMETER: mem_free_scale and max_runtime_scale must be 0 or more';
    END IF;
    SET NEW.created_date = UTC_TIMESTAMP(6), NEW.status_date = UTC_TIMESTAMP(6);
END
