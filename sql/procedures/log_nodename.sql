CREATE PROCEDURE log_nodename(
    in_job_instance_id BIGINT UNSIGNED,
    in_nodename MEDIUMTEXT
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Keeps the host that an instance runs or ran on, in whatever state it is.
Access: JSM
Parameters:
  in_job_instance_id: the job instance
  in_nodename: the host; cut to 255 characters
Returns: {"message": null}
Errors: MISSING_PARAMETER, UNKNOWN_JOB_INSTANCE
Example: CALL log_nodename(1, ''node7'');
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
    IF in_nodename IS NULL THEN
        CALL raise_missing_parameter('nodename');
    END IF;
    CALL begin_work(v_owns);
    CALL lock_job_instance(in_job_instance_id);
    UPDATE job_instance SET nodename = cut_text(in_nodename, 255) WHERE job_instance_id = in_job_instance_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT '{"message": null}' AS document;
END
