CREATE PROCEDURE lock_job(
    in_job_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Takes the first lock of the lock order: the job, exclusively.
Access: internal
Parameters:
  in_job_id: the job
Errors: MISSING_PARAMETER, UNKNOWN_JOB
Example: CALL lock_job(in_job_id);
'
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_job_id BIGINT UNSIGNED;
    IF in_job_id IS NULL THEN
        CALL raise_missing_parameter('job_id');
    END IF;
    SELECT job_id INTO v_job_id FROM job WHERE job_id = in_job_id FOR UPDATE;
    IF v_job_id IS NULL THEN
        SET v_text = CONCAT('UNKNOWN_JOB: there is no job ', in_job_id);
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32021, MESSAGE_TEXT = v_text;
    END IF;
END
