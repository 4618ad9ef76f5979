CREATE PROCEDURE refuse_ended(
    in_job_instance_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Refuses a heartbeat of an instance that has ended, so that its worker stops.
Access: internal
Parameters:
  in_job_instance_id: a job instance whose job the caller has locked
Errors: JOB_INSTANCE_SUPERSEDED, JOB_INSTANCE_ENDED
Example: CALL refuse_ended(in_job_instance_id);
'
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_ended_date DATETIME(6);
    SELECT ended_date INTO v_ended_date FROM job_instance WHERE job_instance_id = in_job_instance_id FOR UPDATE;
    IF v_ended_date IS NOT NULL THEN
        CALL refuse_superseded(in_job_instance_id);
        SET v_text = CONCAT('JOB_INSTANCE_ENDED: job instance ', in_job_instance_id, ' has ended: stop');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32032, MESSAGE_TEXT = v_text;
    END IF;
END
