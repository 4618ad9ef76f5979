CREATE PROCEDURE log_running(
    in_job_instance_id BIGINT UNSIGNED,
    in_nodename MEDIUMTEXT,
    in_process_group_id BIGINT UNSIGNED,
    in_executor_id VARCHAR(64)
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: The instance''s command has started: the instance goes to RUNNING and takes its job along.
Access: JSM
Parameters:
  in_job_instance_id: the job instance
  in_nodename: optional: the host it runs on; cut to 255 characters
  in_process_group_id: optional
  in_executor_id: optional: the batch executor''s id, if it was not logged yet
Returns: {"message": ""}
Errors: MISSING_PARAMETER, UNKNOWN_JOB_INSTANCE, JOB_INSTANCE_ENDED, JOB_INSTANCE_SUPERSEDED
Example: CALL log_running(1, ''node7'', 4242, NULL);
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
    SET status = 'R',
        nodename = COALESCE(IF(CHAR_LENGTH(in_nodename) > 255, cut_text(in_nodename, 255), in_nodename), nodename),
        process_group_id = COALESCE(in_process_group_id, process_group_id),
        executor_id = COALESCE(in_executor_id, executor_id)
    WHERE job_instance_id = in_job_instance_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT '{"message": ""}' AS document;
END
