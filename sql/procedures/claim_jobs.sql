CREATE PROCEDURE claim_jobs(
    in_executor_type VARCHAR(150),
    in_dag_id BIGINT UNSIGNED,
    in_max_jobs INT UNSIGNED,
    in_lease_seconds INT UNSIGNED,
    in_request_key VARCHAR(64),
    in_workflow_run_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Makes job instances for queued jobs, for one executor that will run them. Jobs that another caller is claiming are passed over, and a dag with max_concurrently_running gets no more live instances than that. Without a dag or a run: from the dags whose workflow has a submitted live run, and jobs without a dag; higher priority first, the dags of one priority in equal shares, those with the fewest live instances first.
Access: JSM
Parameters:
  in_executor_type: the executor''s class name
  in_dag_id: optional: jobs of this dag only; none while its workflow, or its newest run, is STOPPED
  in_max_jobs: optional, default 100, at most 1000
  in_lease_seconds: optional, default 300: each report must come within this time of the last, or the instance is lost
  in_request_key: optional; the call may be repeated under it, and gets the same instances
  in_workflow_run_id: optional: jobs of this run''s dag only, and only while the run is RUNNING
Returns: {"job_instances": [{"job_instance_id", "job_id", "dag_id", "workflow_run_id", "attempt_number", "name", "tag", "command", "context_args", "slots", "mem_free", "max_runtime", "max_attempts", "lease_seconds", and of the run: "working_dir", "stdout", "stderr", "project"}, ...]}
Errors: MISSING_PARAMETER, INVALID_PARAMETER, UNKNOWN_DAG, UNKNOWN_WORKFLOW_RUN, WORKFLOW_RUN_ENDED, REQUEST_KEY_CONFLICT, DAG_PRUNED
Example: CALL claim_jobs(''LocalExecutor'', NULL, 100, 60, NULL, NULL);
'
BEGIN
    DECLARE v_document LONGTEXT;
    DECLARE v_ids LONGTEXT;
    DECLARE v_all_ids LONGTEXT DEFAULT '';
    DECLARE v_runs LONGTEXT;
    DECLARE v_dag_id BIGINT UNSIGNED;
    DECLARE v_workflow_run_id BIGINT UNSIGNED;
    DECLARE v_locked_id BIGINT UNSIGNED;
    DECLARE v_max_concurrently_running INT UNSIGNED;
    DECLARE v_workflow_status CHAR(1);
    DECLARE v_run_status CHAR(1);
    DECLARE v_left INT DEFAULT LEAST(COALESCE(in_max_jobs, 100), 1000);
    DECLARE v_limit INT;
    DECLARE v_position INT DEFAULT 0;
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
    SET @@SESSION.group_concat_max_len = 67108864;
    CALL recall_request(in_request_key, 'claim_jobs', v_document);
    IF v_document IS NULL THEN
        IF in_workflow_run_id IS NOT NULL THEN
            CALL find_dag_of_run(in_workflow_run_id, v_dag_id);
            IF in_dag_id <> v_dag_id THEN
                SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002, MESSAGE_TEXT = 'INVALID_PARAMETER: dag_id is not the dag of workflow_run_id';
            END IF;
            SET v_runs = JSON_ARRAY(JSON_OBJECT('dag_id', v_dag_id, 'workflow_run_id', in_workflow_run_id, 'divisor', 1));
        ELSEIF in_dag_id IS NOT NULL THEN
            -- not IF EXISTS: outside of a SELECT, InnoDB reads with a shared lock
            SELECT dag_id INTO v_dag_id FROM task_dag WHERE dag_id = in_dag_id;
            IF v_dag_id IS NULL THEN
                CALL raise_unknown_dag(in_dag_id);
            END IF;
            SET v_runs = JSON_ARRAY(JSON_OBJECT('dag_id', v_dag_id, 'workflow_run_id', newest_workflow_run(v_dag_id), 'divisor', 1));
        ELSE
            -- Two rounds for the dags of one priority: each gets its share of what is left for them, then those with more to do get
            -- what others left over. (dag_id null stands for jobs without a dag. Counts by one status each: with IN, only the first
            -- part of the index would be used, and the live jobs of all dags be read for each.)
            SELECT CONCAT('[', GROUP_CONCAT(JSON_OBJECT('dag_id', dag_id, 'workflow_run_id', workflow_run_id, 'divisor', IF(round = 1, turns_left, 1))
                ORDER BY priority DESC, round, turns_left DESC), ']') INTO v_runs
            FROM (
                SELECT dag_id, workflow_run_id, priority, ROW_NUMBER() OVER (PARTITION BY priority ORDER BY num_live DESC, dag_id DESC) AS turns_left
                FROM (
                    SELECT task_dag.dag_id, workflow_run.workflow_run_id, task_dag.priority, task_dag.max_concurrently_running,
                        (SELECT COUNT(*) FROM job FORCE INDEX (status) WHERE job.status = 'I' AND job.dag_id = task_dag.dag_id)
                        + (SELECT COUNT(*) FROM job FORCE INDEX (status) WHERE job.status = 'R' AND job.dag_id = task_dag.dag_id) AS num_live
                    FROM workflow_run
                        JOIN workflow ON workflow.workflow_id = workflow_run.workflow_id
                        JOIN task_dag ON task_dag.dag_id = workflow.dag_id
                    WHERE workflow_run.status = 'R' AND workflow_run.submitted_date IS NOT NULL
                        -- not EXISTS: as a semi-join it may read all queued jobs
                        AND (SELECT 1 FROM job FORCE INDEX (status) WHERE job.status = 'Q' AND job.dag_id = task_dag.dag_id LIMIT 1) IS NOT NULL
                    UNION ALL
                    SELECT NULL, NULL, 0, NULL,
                        (SELECT COUNT(*) FROM job FORCE INDEX (status) WHERE job.status = 'I' AND job.dag_id IS NULL)
                        + (SELECT COUNT(*) FROM job FORCE INDEX (status) WHERE job.status = 'R' AND job.dag_id IS NULL)
                    FROM DUAL
                    WHERE (SELECT 1 FROM job FORCE INDEX (status) WHERE job.status = 'Q' AND job.dag_id IS NULL LIMIT 1) IS NOT NULL
                ) AS queued
                WHERE num_live < max_concurrently_running OR max_concurrently_running IS NULL
            ) AS claimable
                CROSS JOIN (SELECT 1 AS round UNION ALL SELECT 2) AS rounds;
        END IF;
        -- a run is looked at even where no job is asked for: its client must learn that it has ended
        WHILE (v_left > 0 OR in_workflow_run_id IS NOT NULL) AND v_position < COALESCE(JSON_LENGTH(v_runs), 0) DO
            SELECT dag_id, workflow_run_id, CEIL(v_left / divisor) INTO v_dag_id, v_workflow_run_id, v_limit
            FROM JSON_TABLE(JSON_EXTRACT(v_runs, CONCAT('$[', v_position, ']')), '$' COLUMNS (dag_id BIGINT UNSIGNED PATH '$.dag_id',
                workflow_run_id BIGINT UNSIGNED PATH '$.workflow_run_id', divisor INT UNSIGNED PATH '$.divisor')) AS run;
            SET v_position = v_position + 1, v_ids = NULL, v_locked_id = NULL,
                v_max_concurrently_running = NULL, v_workflow_status = NULL, v_run_status = NULL;
            SELECT max_concurrently_running INTO v_max_concurrently_running FROM task_dag WHERE dag_id = v_dag_id;
            IF v_max_concurrently_running IS NOT NULL THEN
                -- who claims from a dag with a limit counts and claims in one step
                IF COALESCE(in_workflow_run_id, in_dag_id) IS NOT NULL THEN
                    SELECT dag_id, max_concurrently_running INTO v_locked_id, v_max_concurrently_running FROM task_dag
                    WHERE dag_id = v_dag_id FOR UPDATE;
                ELSE
                    -- of many dags, whose order changes from call to call: who waited for one while it holds others could wait for ever
                    SELECT dag_id, max_concurrently_running INTO v_locked_id, v_max_concurrently_running FROM task_dag
                    WHERE dag_id = v_dag_id FOR UPDATE SKIP LOCKED;
                END IF;
                SELECT IF(v_locked_id IS NULL, 0, LEAST(v_limit, GREATEST(COALESCE(CAST(v_max_concurrently_running AS SIGNED) - COUNT(*), v_limit), 0)))
                INTO v_limit FROM job FORCE INDEX (status) WHERE dag_id = v_dag_id AND status IN ('I', 'R');
            END IF;
            -- The run is locked before the jobs (the foreign key of the instances would do it after them), and shared, since no claim
            -- changes it: it can't be stopped while its jobs are claimed. A workflow may have been stopped when no run of it was live.
            IF in_workflow_run_id IS NOT NULL THEN
                CALL refuse_ended_run(in_workflow_run_id);
            ELSEIF v_limit > 0 THEN
                IF in_dag_id IS NOT NULL THEN
                    SELECT status INTO v_workflow_status FROM workflow WHERE dag_id = in_dag_id ORDER BY workflow_id LIMIT 1 LOCK IN SHARE MODE;
                END IF;
                SELECT status INTO v_run_status FROM workflow_run WHERE workflow_run_id = v_workflow_run_id LOCK IN SHARE MODE;
                IF 'S' IN (v_workflow_status, v_run_status) OR (in_dag_id IS NULL AND v_run_status <> 'R') THEN
                    SET v_limit = 0;
                END IF;
            END IF;
            SELECT CONCAT('[', GROUP_CONCAT(job_id ORDER BY job_id), ']') INTO v_ids FROM (
                -- this index and no other: MySQL would walk, and lock, all jobs in the order of their ids
                SELECT job_id FROM job FORCE INDEX (status) WHERE status = 'Q' AND dag_id <=> v_dag_id
                ORDER BY job_id LIMIT v_limit FOR UPDATE SKIP LOCKED) AS claimed;
            IF v_ids IS NOT NULL THEN
                IF in_dag_id IS NOT NULL THEN
                    -- under the jobs' locks, which who marks a dag takes, too; a dag with a live run is never marked
                    CALL refuse_pruned_dag(in_dag_id);
                END IF;
                -- the lock is the limit's on one server; between nodes of Galera it is that both write the row
                UPDATE task_dag SET num_claims = num_claims + 1 WHERE dag_id = v_locked_id;
                INSERT INTO job_instance (job_id, executor_type, workflow_run_id, lease_seconds, report_by_date)
                SELECT job_id, in_executor_type, v_workflow_run_id, COALESCE(in_lease_seconds, 300),
                    UTC_TIMESTAMP(6) + INTERVAL COALESCE(in_lease_seconds, 300) SECOND
                FROM JSON_TABLE(v_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS claimed;
                SET v_left = v_left - JSON_LENGTH(v_ids),
                    v_all_ids = CONCAT_WS(',', NULLIF(v_all_ids, ''), SUBSTRING(v_ids, 2, CHAR_LENGTH(v_ids) - 2));
            END IF;
        END WHILE;
        SELECT CONCAT('{"job_instances": [', COALESCE(GROUP_CONCAT(work.document ORDER BY work.job_instance_id), ''), ']}') INTO v_document
        FROM JSON_TABLE(CONCAT('[', v_all_ids, ']'), '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS claimed
            STRAIGHT_JOIN job_instance_work AS work ON work.job_id = claimed.job_id AND work.attempt_number = work.newest_attempt_number;
        UPDATE api_request SET answer = v_document WHERE request_key = in_request_key;
    END IF;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT v_document AS document;
END
