CREATE PROCEDURE refuse_superseded(
    in_job_instance_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Refuses a report that changes no status (the triggers refuse the others) of an instance that was given up:
  its job was reset, or has a newer instance.
Access: internal
Parameters:
  in_job_instance_id: a job instance whose job the caller has locked
Errors: JOB_INSTANCE_SUPERSEDED
Example: CALL refuse_superseded(in_job_instance_id);
'
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_superseded BOOLEAN;
    -- locking, since the caller may have joined a transaction with an old snapshot
    SELECT job.status = 'G' OR job_instance.attempt_number <> job.attempts_before_reset + job.num_attempts INTO v_superseded
    FROM job_instance JOIN job ON job.job_id = job_instance.job_id
    WHERE job_instance.job_instance_id = in_job_instance_id FOR UPDATE;
    IF v_superseded THEN
        SET v_text = CONCAT('JOB_INSTANCE_SUPERSEDED: job instance ', in_job_instance_id, ' was given up: stop');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32033, MESSAGE_TEXT = v_text;
    END IF;
END
