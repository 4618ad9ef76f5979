CREATE PROCEDURE kill_job(
    in_job_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Ends a job for good: its live job instance ends in ERROR, its worker is told to stop by the next heartbeat, and the job is ERROR_FATAL (max_attempts becomes the attempts made). retry_job or a reset bring it back.
Access: JSM
Parameters:
  in_job_id: the job
Returns: {"job_dct": {...}}
Errors: MISSING_PARAMETER, UNKNOWN_JOB, JOB_NOT_LIVE
Example: CALL kill_job(1);
'
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_status CHAR(1);
    DECLARE v_job_instance_id BIGINT UNSIGNED;
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
    CALL begin_work(v_owns);
    CALL lock_job(in_job_id);
    SELECT job.status, job_instance.job_instance_id INTO v_status, v_job_instance_id
    FROM job LEFT JOIN job_instance ON job_instance.job_id = job.job_id
        AND job_instance.attempt_number = job.attempts_before_reset + job.num_attempts
    WHERE job.job_id = in_job_id FOR UPDATE;
    -- ERROR_FATAL: the call is repeated
    IF v_status NOT IN ('I', 'R', 'F') THEN
        SET v_text = CONCAT('JOB_NOT_LIVE: job ', in_job_id, ' is ', v_status, ', so there is nothing to kill');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32045, MESSAGE_TEXT = v_text;
    END IF;
    IF v_status <> 'F' THEN
        UPDATE job SET max_attempts = num_attempts WHERE job_id = in_job_id;
        UPDATE job_instance SET error_message = 'Killed by request', status = 'E' WHERE job_instance_id = v_job_instance_id;
    END IF;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('job_dct', JSON_EXTRACT(document, '$')) AS document FROM job_dct WHERE job_id = in_job_id;
END
