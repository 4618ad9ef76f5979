CREATE PROCEDURE start_job_instance(
    in_job_instance_id BIGINT UNSIGNED,
    in_nodename MEDIUMTEXT,
    in_process_group_id BIGINT UNSIGNED,
    in_executor_id VARCHAR(64),
    in_lease_seconds INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: log_running for a worker, which learns what it has to run from the answer. Refused, it must not run it. An instance that was submitted twice, since nobody knew whether the first submission was taken, is started by one of the two.
Access: JSM
Parameters:
  in_job_instance_id: the job instance
  in_nodename: optional: the host it runs on; cut to 255 characters
  in_process_group_id: optional
  in_executor_id: optional: the batch executor''s id, if it was not logged yet
  in_lease_seconds: optional: from now on each report must come within this time of the last
Returns: {"job_instance": {...}}: as an item of claim_jobs
Errors: MISSING_PARAMETER, UNKNOWN_JOB_INSTANCE, JOB_INSTANCE_ENDED, JOB_INSTANCE_SUPERSEDED, JOB_INSTANCE_STARTED
Example: CALL start_job_instance(1, ''node7'', 4242, NULL, 90);
'
BEGIN
    DECLARE v_owns BOOLEAN;
    DECLARE v_executor_id VARCHAR(64);
    DECLARE v_text VARCHAR(127);
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
    CALL lock_job_instance(in_job_instance_id);
    SELECT executor_id INTO v_executor_id FROM job_instance
    WHERE job_instance_id = in_job_instance_id AND status = 'R' FOR UPDATE;
    IF v_executor_id <> in_executor_id THEN
        SET v_text = CONCAT('JOB_INSTANCE_STARTED: job instance ', in_job_instance_id, ' runs as ', v_executor_id, ': stop');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32047, MESSAGE_TEXT = v_text;
    END IF;
    UPDATE job_instance
    SET status = 'R',
        nodename = COALESCE(IF(CHAR_LENGTH(in_nodename) > 255, cut_text(in_nodename, 255), in_nodename), nodename),
        process_group_id = COALESCE(in_process_group_id, process_group_id),
        executor_id = COALESCE(in_executor_id, executor_id),
        report_by_date = COALESCE(UTC_TIMESTAMP(6) + INTERVAL in_lease_seconds SECOND, report_by_date),
        lease_seconds = COALESCE(in_lease_seconds, lease_seconds)
    WHERE job_instance_id = in_job_instance_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('job_instance', JSON_EXTRACT(document, '$')) AS document FROM job_instance_work
    WHERE job_instance_id = in_job_instance_id;
END
