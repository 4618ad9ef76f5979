CREATE PROCEDURE refuse_transition(
    in_job_instance_id BIGINT UNSIGNED,
    in_job_id BIGINT UNSIGNED,
    in_attempt_number INT UNSIGNED,
    in_from_status CHAR(1),
    in_to_status CHAR(1)
)
    SQL SECURITY DEFINER
    READS SQL DATA
    COMMENT '
Description: Names the reason why a job instance cannot change its status: it was given up, it has ended, or the
  transition is not a row of job_instance_transition.
Access: internal
Parameters:
  in_job_instance_id: the job instance
  in_job_id: its job
  in_attempt_number: its attempt_number
  in_from_status: the status it has
  in_to_status: the status it was to get
Errors: ILLEGAL_TRANSITION, JOB_INSTANCE_SUPERSEDED, JOB_INSTANCE_ENDED
Example: CALL refuse_transition(1, 1, 1, ''D'', ''E'');
'
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_newest INT UNSIGNED;
    IF EXISTS (SELECT 1 FROM job_instance_transition WHERE from_status = in_from_status)
        OR NOT EXISTS (SELECT 1 FROM job_instance_status WHERE status = in_to_status)
    THEN
        SET v_text = CONCAT('ILLEGAL_TRANSITION: job instance ', in_job_instance_id, ' cannot go from ', in_from_status, ' to ', in_to_status);
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32030, MESSAGE_TEXT = v_text;
    END IF;
    SELECT IF(status = 'G', 0, attempts_before_reset + num_attempts) INTO v_newest FROM job WHERE job_id = in_job_id;
    IF v_newest <> in_attempt_number THEN
        SET v_text = CONCAT('JOB_INSTANCE_SUPERSEDED: job instance ', in_job_instance_id, ' was given up (it is ', in_from_status, '): stop');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32033, MESSAGE_TEXT = v_text;
    END IF;
    SET v_text = CONCAT('JOB_INSTANCE_ENDED: job instance ', in_job_instance_id, ' has ended as ', in_from_status, ': stop');
    SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32032, MESSAGE_TEXT = v_text;
END
