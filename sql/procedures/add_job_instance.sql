CREATE PROCEDURE add_job_instance(
    in_job_id BIGINT UNSIGNED,
    in_executor_type VARCHAR(150),
    in_attempt_number INT UNSIGNED,
    in_lease_seconds INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Makes a queued job''s next job instance: adds 1 to num_attempts and takes the job to INSTANTIATED.
Access: JSM
Parameters:
  in_job_id: the job
  in_executor_type: the executor''s class name
  in_attempt_number: optional key of the call: the number of the attempt to make (attempt_number of the newest instance plus 1). Repeated, the call finds the instance that it made
  in_lease_seconds: optional: each report must come within this time of the last, or the instance is lost. Without it the instance is given a day to be submitted or run, and then is not watched
Returns: {"job_instance_id": n}
Errors: MISSING_PARAMETER, UNKNOWN_JOB, JOB_NOT_QUEUED, ATTEMPT_NUMBER_CONFLICT, DAG_PRUNED
Example: CALL add_job_instance(1, ''SequentialExecutor'', NULL, NULL);
'
BEGIN
    DECLARE v_job_instance_id, v_workflow_run_id BIGINT UNSIGNED;
    DECLARE v_dag_id BIGINT UNSIGNED;
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
    IF in_executor_type IS NULL THEN
        CALL raise_missing_parameter('executor_type');
    END IF;
    CALL begin_work(v_owns);
    -- the run before the job: the foreign key would lock it after, and who submits or stops a run locks it before its jobs
    SELECT dag_id, newest_workflow_run(dag_id) INTO v_dag_id, v_workflow_run_id FROM job WHERE job_id = in_job_id;
    SELECT workflow_run_id INTO v_workflow_run_id FROM workflow_run WHERE workflow_run_id = v_workflow_run_id LOCK IN SHARE MODE;
    CALL lock_job(in_job_id);
    SELECT job_instance_id INTO v_job_instance_id FROM job_instance
    WHERE job_id = in_job_id AND attempt_number = in_attempt_number AND executor_type = in_executor_type
        AND status = 'I';
    IF v_job_instance_id IS NULL THEN
        CALL refuse_pruned_dag(v_dag_id);
        INSERT INTO job_instance (job_id, attempt_number, executor_type, workflow_run_id, lease_seconds, report_by_date)
        VALUES (in_job_id, COALESCE(in_attempt_number, 0), in_executor_type,
                v_workflow_run_id, in_lease_seconds,
                UTC_TIMESTAMP(6) + INTERVAL COALESCE(in_lease_seconds, 86400) SECOND);
        SET v_job_instance_id = LAST_INSERT_ID();
    END IF;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('job_instance_id', v_job_instance_id + 0) AS document;
END
