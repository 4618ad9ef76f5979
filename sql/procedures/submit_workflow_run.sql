CREATE PROCEDURE submit_workflow_run(
    in_workflow_run_id BIGINT UNSIGNED,
    in_max_jobs INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Hands a live run to distributors: queues the REGISTERED jobs of its dag whose upstreams are DONE and, when none is left, says so in submitted_date. From then on distributors claim the jobs, and the database ends the run.
Access: JSM
Parameters:
  in_workflow_run_id: the workflow run
  in_max_jobs: optional, default 10000: at most so many in this call; call again until none is left
Returns: {"num_queued": n, "num_left": n}: as queue_jobs
Errors: MISSING_PARAMETER, UNKNOWN_WORKFLOW_RUN, WORKFLOW_RUN_ENDED, DAG_PRUNED
Example: CALL submit_workflow_run(1, NULL);
'
BEGIN
    DECLARE v_dag_id BIGINT UNSIGNED;
    DECLARE v_num_queued INT UNSIGNED;
    DECLARE v_num_left INT UNSIGNED;
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
    CALL find_dag_of_run(in_workflow_run_id, v_dag_id);
    CALL lock_workflow_run(in_workflow_run_id);
    CALL refuse_ended_run(in_workflow_run_id);
    CALL queue_ready_jobs(v_dag_id, NULL, in_max_jobs, v_num_queued, v_num_left);
    UPDATE workflow_run
    SET submitted_date = COALESCE(submitted_date, IF(v_num_left = 0, UTC_TIMESTAMP(6), NULL)), heartbeat_date = UTC_TIMESTAMP(6)
    WHERE workflow_run_id = in_workflow_run_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('num_left', v_num_left + 0, 'num_queued', v_num_queued + 0) AS document;
END
