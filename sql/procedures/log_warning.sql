CREATE PROCEDURE log_warning(
    in_job_instance_id BIGINT UNSIGNED,
    in_error_message MEDIUMTEXT,
    in_nodename MEDIUMTEXT,
    in_usage_str MEDIUMTEXT,
    in_wallclock MEDIUMTEXT,
    in_maxvmem MEDIUMTEXT,
    in_cpu MEDIUMTEXT,
    in_io MEDIUMTEXT
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Something went wrong that did not end the instance: adds a row to its error log, with severity warning, and changes no status. The same text again, with nothing in between, is the same warning.
Access: JSM
Parameters:
  in_job_instance_id: the job instance
  in_error_message: what went wrong; over 65535 characters it is cut in its middle and says so
  in_nodename: optional; cut to 255 characters
  in_usage_str: optional; this and the others say what it used, as log_usage takes it
  in_wallclock: optional
  in_maxvmem: optional
  in_cpu: optional
  in_io: optional
Returns: {"message": null}
Errors: MISSING_PARAMETER, UNKNOWN_JOB_INSTANCE, JOB_INSTANCE_ENDED, JOB_INSTANCE_SUPERSEDED
Example: CALL log_warning(1, ''sbatch: error: Batch job submission failed'', NULL, NULL, NULL, NULL, NULL, NULL);
'
BEGIN
    DECLARE v_text MEDIUMTEXT DEFAULT IF(CHAR_LENGTH(in_error_message) > 65535, cut_text(in_error_message, 65535), in_error_message);
    DECLARE v_newest MEDIUMTEXT;
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
    CALL begin_work(v_owns);
    -- two that repeat each other take turns here
    CALL lock_job_instance(in_job_instance_id);
    CALL refuse_ended(in_job_instance_id);
    -- locking: a caller's own transaction may have an old picture
    SELECT description INTO v_newest FROM job_instance_error_log WHERE job_instance_id = in_job_instance_id
    ORDER BY job_instance_error_log_id DESC LIMIT 1 FOR UPDATE;
    IF NOT (v_newest <=> v_text) THEN
        INSERT INTO job_instance_error_log (job_instance_id, error_time, severity, description)
        VALUES (in_job_instance_id, UTC_TIMESTAMP(6), 'warning', v_text);
    END IF;
    UPDATE job_instance
    SET nodename = COALESCE(IF(CHAR_LENGTH(in_nodename) > 255, cut_text(in_nodename, 255), in_nodename), nodename),
        usage_str = COALESCE(IF(CHAR_LENGTH(in_usage_str) > 1000, cut_text(in_usage_str, 1000), in_usage_str), usage_str),
        wallclock = COALESCE(IF(CHAR_LENGTH(in_wallclock) > 64, cut_text(in_wallclock, 64), in_wallclock), wallclock),
        maxvmem = COALESCE(IF(CHAR_LENGTH(in_maxvmem) > 64, cut_text(in_maxvmem, 64), in_maxvmem), maxvmem),
        cpu = COALESCE(IF(CHAR_LENGTH(in_cpu) > 64, cut_text(in_cpu, 64), in_cpu), cpu),
        io = COALESCE(IF(CHAR_LENGTH(in_io) > 64, cut_text(in_io, 64), in_io), io)
    WHERE job_instance_id = in_job_instance_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT '{"message": null}' AS document;
END
