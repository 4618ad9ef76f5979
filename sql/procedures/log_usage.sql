CREATE PROCEDURE log_usage(
    in_job_instance_id BIGINT UNSIGNED,
    in_usage_str MEDIUMTEXT,
    in_wallclock MEDIUMTEXT,
    in_maxvmem MEDIUMTEXT,
    in_cpu MEDIUMTEXT,
    in_io MEDIUMTEXT
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Keeps what an instance used, in whatever state it is. What is left out stays as it is.
Access: JSM
Parameters:
  in_job_instance_id: the job instance
  in_usage_str: all of the executor''s figures in one text; cut to 1000 characters
  in_wallclock: optional; this and the others are cut to 64 characters
  in_maxvmem: optional
  in_cpu: optional
  in_io: optional
Returns: {"message": null}
Errors: MISSING_PARAMETER, UNKNOWN_JOB_INSTANCE
Example: CALL log_usage(1, NULL, ''12.5'', ''1.5G'', NULL, NULL);
'
BEGIN
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
    SET usage_str = COALESCE(cut_text(in_usage_str, 1000), usage_str),
        wallclock = COALESCE(cut_text(in_wallclock, 64), wallclock),
        maxvmem = COALESCE(cut_text(in_maxvmem, 64), maxvmem),
        cpu = COALESCE(cut_text(in_cpu, 64), cpu),
        io = COALESCE(cut_text(in_io, 64), io)
    WHERE job_instance_id = in_job_instance_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT '{"message": null}' AS document;
END
