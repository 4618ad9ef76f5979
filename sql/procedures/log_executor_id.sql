CREATE PROCEDURE log_executor_id(
    in_job_instance_id BIGINT UNSIGNED,
    in_executor_id VARCHAR(64)
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Keeps the batch executor''s id and takes an INSTANTIATED instance to SUBMITTED_TO_BATCH_EXECUTOR. The id may come after the instance has reported running, or has ended: it is kept then too, and no state moves back.
Access: JSM
Parameters:
  in_job_instance_id: the job instance
  in_executor_id: the batch executor''s id
Returns: {"message": ""}
Errors: MISSING_PARAMETER, UNKNOWN_JOB_INSTANCE, JOB_INSTANCE_SUPERSEDED
Example: CALL log_executor_id(1, 4711);
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
    IF in_executor_id IS NULL THEN
        CALL raise_missing_parameter('executor_id');
    END IF;
    CALL begin_work(v_owns);
    CALL lock_job_instance(in_job_instance_id);
    CALL refuse_superseded(in_job_instance_id);
    UPDATE job_instance SET executor_id = in_executor_id, status = IF(status = 'I', 'B', status)
    WHERE job_instance_id = in_job_instance_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT '{"message": ""}' AS document;
END
