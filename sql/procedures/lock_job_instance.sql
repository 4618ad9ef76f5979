CREATE PROCEDURE lock_job_instance(
    in_job_instance_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Takes the first lock of the lock order for a report on a job instance: its job, exclusively. Whoever reports on
  the instance must pass here. (The instance''s job never changes, so it may be looked up before.)
Access: internal
Parameters:
  in_job_instance_id: the job instance
Errors: MISSING_PARAMETER, UNKNOWN_JOB_INSTANCE
Example: CALL lock_job_instance(in_job_instance_id);
'
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_job_id BIGINT UNSIGNED;
    IF in_job_instance_id IS NULL THEN
        CALL raise_missing_parameter('job_instance_id');
    END IF;
    -- the subquery reads without a lock; the instance itself is locked by the UPDATE that follows
    SELECT job_id INTO v_job_id FROM job
    WHERE job_id = (SELECT job_id FROM job_instance WHERE job_instance_id = in_job_instance_id) FOR UPDATE;
    IF v_job_id IS NULL THEN
        SET v_text = CONCAT('UNKNOWN_JOB_INSTANCE: there is no job instance ', in_job_instance_id);
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32022, MESSAGE_TEXT = v_text;
    END IF;
END
