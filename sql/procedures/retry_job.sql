CREATE PROCEDURE retry_job(
    in_job_id BIGINT UNSIGNED,
    in_max_attempts INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Gives a job more attempts and queues it again if it is ERROR_FATAL. Its history stays.
Access: JSM
Parameters:
  in_job_id: the job
  in_max_attempts: the new threshold; optional: the attempts made plus 1
Returns: {"job_dct": {...}}
Errors: MISSING_PARAMETER, UNKNOWN_JOB, ATTEMPTS_EXHAUSTED (the threshold is not above the attempts made), ILLEGAL_TRANSITION (the job is DONE), DAG_PRUNED
Example: CALL retry_job(1, NULL);
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
    CALL lock_job(in_job_id);
    -- a live or queued job is not disturbed; a repeated call finds it so
    UPDATE job
    SET max_attempts = COALESCE(in_max_attempts, IF(status = 'F', num_attempts + 1, max_attempts)),
        status = IF(status IN ('F', 'D'), 'Q', status)
    WHERE job_id = in_job_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('job_dct', JSON_EXTRACT(document, '$')) AS document FROM job_dct WHERE job_id = in_job_id;
END
