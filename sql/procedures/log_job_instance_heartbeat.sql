CREATE PROCEDURE log_job_instance_heartbeat(
    in_job_instance_id BIGINT UNSIGNED,
    in_lease_seconds INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: The instance is alive: moves its report_by_date ahead by its lease. The answer of an instance that was given up tells its worker to stop.
Access: JSM
Parameters:
  in_job_instance_id: the job instance
  in_lease_seconds: optional: from now on each report must come within this time of the last
Returns: {}
Errors: MISSING_PARAMETER, UNKNOWN_JOB_INSTANCE, JOB_INSTANCE_ENDED, JOB_INSTANCE_SUPERSEDED
Example: CALL log_job_instance_heartbeat(1, 90);
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
    CALL refuse_ended(in_job_instance_id);
    UPDATE job_instance
    SET lease_seconds = COALESCE(in_lease_seconds, lease_seconds),
        report_by_date = COALESCE(UTC_TIMESTAMP(6) + INTERVAL COALESCE(in_lease_seconds, lease_seconds) SECOND, report_by_date)
    WHERE job_instance_id = in_job_instance_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT '{}' AS document;
END
