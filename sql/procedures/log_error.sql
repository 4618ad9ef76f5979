CREATE PROCEDURE log_error(
    in_job_instance_id BIGINT UNSIGNED,
    in_error_message MEDIUMTEXT,
    in_nodename MEDIUMTEXT,
    in_executor_id VARCHAR(64),
    in_job_instance_status VARCHAR(64),
    in_exceeded VARCHAR(64),
    in_usage_str MEDIUMTEXT,
    in_wallclock MEDIUMTEXT,
    in_maxvmem MEDIUMTEXT,
    in_cpu MEDIUMTEXT,
    in_io MEDIUMTEXT
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: The attempt failed: the instance is in ERROR (or in the error that is given), its job is queued again, or is ERROR_FATAL when num_attempts has reached max_attempts.
Access: JSM
Parameters:
  in_job_instance_id: the job instance
  in_error_message: what went wrong; over 65535 characters it is cut in its middle and says so
  in_nodename: optional; cut to 255 characters
  in_executor_id: optional: the batch executor''s id
  in_job_instance_status: optional, default E: which error it is: E ERROR, W NO_EXECUTOR_ID (the batch executor would not take it), Z RESOURCE_ERROR (it used more memory or time than it had asked for), U UNKNOWN_ERROR (it ended, and nobody knows how)
  in_exceeded: optional, with Z only: mem_free or max_runtime; a retry gets more of it, by the job''s mem_free_scale or max_runtime_scale
  in_usage_str: optional; this and the others say what it used, as log_usage takes it
  in_wallclock: optional
  in_maxvmem: optional
  in_cpu: optional
  in_io: optional
Returns: {"message": ""}, or {"message": "dag_id [job_id, \"F\"]"} if the job is ERROR_FATAL
Errors: MISSING_PARAMETER, INVALID_PARAMETER, UNKNOWN_JOB_INSTANCE, ILLEGAL_TRANSITION (W of an instance that has left I), JOB_INSTANCE_ENDED, JOB_INSTANCE_SUPERSEDED
Example: CALL log_error(1, ''out of memory'', NULL, NULL, ''Z'', ''mem_free'', NULL, ''12.5'', ''8388608K'', NULL, NULL);
'
BEGIN
    DECLARE v_message VARCHAR(127);
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
    IF in_error_message IS NULL THEN
        CALL raise_missing_parameter('error_message');
    END IF;
    IF COALESCE(in_job_instance_status, 'E') NOT IN ('E', 'W', 'Z', 'U') THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002,
            MESSAGE_TEXT = 'INVALID_PARAMETER: job_instance_status must be E, W, Z or U';
    END IF;
    IF in_exceeded IS NOT NULL AND NOT (in_job_instance_status <=> 'Z' AND in_exceeded IN ('mem_free', 'max_runtime')) THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002,
            MESSAGE_TEXT = 'INVALID_PARAMETER: exceeded must be mem_free or max_runtime, and goes with job_instance_status Z only';
    END IF;
    CALL begin_work(v_owns);
    CALL lock_job_instance(in_job_instance_id);
    -- the first message stays when the report is repeated
    UPDATE job_instance
    SET error_message = IF(ended_date IS NOT NULL, error_message, IF(CHAR_LENGTH(in_error_message) > 65535, cut_text(in_error_message, 65535), in_error_message)),
        status = COALESCE(in_job_instance_status, 'E'),
        exceeded = in_exceeded,
        nodename = COALESCE(IF(CHAR_LENGTH(in_nodename) > 255, cut_text(in_nodename, 255), in_nodename), nodename),
        executor_id = COALESCE(in_executor_id, executor_id),
        usage_str = COALESCE(IF(CHAR_LENGTH(in_usage_str) > 1000, cut_text(in_usage_str, 1000), in_usage_str), usage_str),
        wallclock = COALESCE(IF(CHAR_LENGTH(in_wallclock) > 64, cut_text(in_wallclock, 64), in_wallclock), wallclock),
        maxvmem = COALESCE(IF(CHAR_LENGTH(in_maxvmem) > 64, cut_text(in_maxvmem, 64), in_maxvmem), maxvmem),
        cpu = COALESCE(IF(CHAR_LENGTH(in_cpu) > 64, cut_text(in_cpu, 64), in_cpu), cpu),
        io = COALESCE(IF(CHAR_LENGTH(in_io) > 64, cut_text(in_io, 64), in_io), io)
    WHERE job_instance_id = in_job_instance_id;
    SET v_message = publish_message(in_job_instance_id);
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('message', v_message) AS document;
END
