CREATE PROCEDURE log_done(
    in_job_instance_id BIGINT UNSIGNED,
    in_nodename MEDIUMTEXT,
    in_executor_id VARCHAR(64),
    in_usage_str MEDIUMTEXT,
    in_wallclock MEDIUMTEXT,
    in_maxvmem MEDIUMTEXT,
    in_cpu MEDIUMTEXT,
    in_io MEDIUMTEXT
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: The instance''s command ended well: the instance and its job are DONE, and downstream jobs that waited for it last are queued.
Access: JSM
Parameters:
  in_job_instance_id: the job instance
  in_nodename: optional; cut to 255 characters
  in_executor_id: optional: the batch executor''s id
  in_usage_str: optional; this and the others say what it used, as log_usage takes it
  in_wallclock: optional
  in_maxvmem: optional
  in_cpu: optional
  in_io: optional
Returns: {"message": "dag_id [job_id, \"D\"]"}
Errors: MISSING_PARAMETER, UNKNOWN_JOB_INSTANCE, ILLEGAL_TRANSITION, JOB_INSTANCE_ENDED, JOB_INSTANCE_SUPERSEDED
Example: CALL log_done(1, NULL, NULL, NULL, ''12.5'', ''2048K'', ''11.9'', NULL);
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
    CALL begin_work(v_owns);
    CALL lock_job_instance(in_job_instance_id);
    UPDATE job_instance
    SET status = 'D',
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
