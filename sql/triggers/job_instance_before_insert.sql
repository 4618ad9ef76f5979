-- Description: A job instance is made for a job in QUEUED_FOR_INSTANTIATION only, as that job's next attempt.
CREATE TRIGGER job_instance_before_insert BEFORE INSERT ON job_instance FOR EACH ROW
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_job_status CHAR(1);
    DECLARE v_attempt_number INT UNSIGNED;
    IF NEW.status <> 'I' THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32053,
            MESSAGE_TEXT = 'WRONG_FIRST_STATUS: a job instance starts in I (INSTANTIATED)';
    END IF;
    -- exclusively at once: the foreign key would take a shared lock, and job_instance_after_insert updates the job
    SELECT status, attempts_before_reset + num_attempts + 1 INTO v_job_status, v_attempt_number
    FROM job WHERE job_id = NEW.job_id FOR UPDATE;
    IF v_job_status IS NULL THEN
        SET v_text = CONCAT('UNKNOWN_JOB: there is no job ', NEW.job_id);
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32021, MESSAGE_TEXT = v_text;
    END IF;
    IF v_job_status <> 'Q' THEN
        SET v_text = CONCAT('JOB_NOT_QUEUED: job ', NEW.job_id, ' is ', v_job_status, ', not Q');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32031, MESSAGE_TEXT = v_text;
    END IF;
    IF NEW.attempt_number NOT IN (0, v_attempt_number) THEN
        SET v_text = CONCAT('ATTEMPT_NUMBER_CONFLICT: the next attempt of job ', NEW.job_id, ' is ', v_attempt_number, ', not ', NEW.attempt_number);
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32040, MESSAGE_TEXT = v_text;
    END IF;
    SET NEW.attempt_number = v_attempt_number;
    SET NEW.created_date = UTC_TIMESTAMP(6), NEW.status_date = UTC_TIMESTAMP(6),
        NEW.submitted_date = NULL, NEW.running_date = NULL, NEW.ended_date = NULL, NEW.error_message = NULL, NEW.exceeded = NULL;
END
