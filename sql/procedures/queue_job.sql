CREATE PROCEDURE queue_job(
    in_job_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Queues a job that is REGISTERED and whose upstreams are DONE.
Access: JSM
Parameters:
  in_job_id: the job
Returns: {}
Errors: MISSING_PARAMETER, UNKNOWN_JOB, UPSTREAM_NOT_DONE, ILLEGAL_TRANSITION, ATTEMPTS_EXHAUSTED, DAG_PRUNED
Example: CALL queue_job(1);
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
    UPDATE job SET status = 'Q' WHERE job_id = in_job_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT '{}' AS document;
END
