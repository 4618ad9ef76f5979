CREATE PROCEDURE log_executor_name(
    in_job_instance_id BIGINT UNSIGNED,
    in_executor_name VARCHAR(128)
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Keeps the name under which an instance is about to be submitted, so that the submission is found again if its executor_id is never logged. Refused, it must not be submitted. No status changes.
Access: JSM
Parameters:
  in_job_instance_id: the job instance
  in_executor_name: the name on the scheduler, jobmon-<database_id>-<job_instance_id>, and the number of the task in an array
Returns: {}
Errors: MISSING_PARAMETER, UNKNOWN_JOB_INSTANCE, JOB_INSTANCE_ENDED, JOB_INSTANCE_SUPERSEDED
Example: CALL log_executor_name(1, ''jobmon-1f2e3d4c-1.0'');
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
    IF in_executor_name IS NULL THEN
        CALL raise_missing_parameter('executor_name');
    END IF;
    CALL begin_work(v_owns);
    CALL lock_job_instance(in_job_instance_id);
    CALL refuse_ended(in_job_instance_id);
    UPDATE job_instance SET executor_name = in_executor_name WHERE job_instance_id = in_job_instance_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT '{}' AS document;
END
