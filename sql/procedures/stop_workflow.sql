CREATE PROCEDURE stop_workflow(
    in_workflow_id BIGINT UNSIGNED,
    in_kill BOOLEAN,
    in_workflow_run_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Stops a workflow: its live run and the workflow become STOPPED, and no job of it is claimed any more. Jobs that run end as they will, or are killed. It can be resumed.
Access: JSM
Parameters:
  in_workflow_id: the workflow
  in_kill: true: its live job instances end in ERROR at once, and their workers are told to stop by the next heartbeat; optional, default false
  in_workflow_run_id: optional: only if this is its newest run, and was not superseded by another one
Returns: {"workflow_run_id": the run that was stopped or null, "num_killed": n}
Errors: MISSING_PARAMETER, UNKNOWN_WORKFLOW, WORKFLOW_RUN_ENDED, ILLEGAL_TRANSITION (the workflow is DONE)
Example: CALL stop_workflow(1, FALSE, NULL);
'
BEGIN
    DECLARE v_workflow_run_id BIGINT UNSIGNED;
    DECLARE v_dag_id BIGINT UNSIGNED;
    DECLARE v_ids LONGTEXT;
    DECLARE v_num_killed INT UNSIGNED DEFAULT 0;
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
    IF in_workflow_id IS NULL THEN
        CALL raise_missing_parameter('workflow_id');
    END IF;
    CALL begin_work(v_owns);
    SET @@SESSION.group_concat_max_len = 67108864;
    CALL lock_workflow(in_workflow_id);
    -- new runs wait for the workflow's lock
    IF in_workflow_run_id IS NOT NULL AND NOT in_workflow_run_id <=> (SELECT workflow_run_id FROM workflow_run
        WHERE workflow_id = in_workflow_id ORDER BY workflow_run_id DESC LIMIT 1) THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32044, MESSAGE_TEXT = 'WORKFLOW_RUN_ENDED: that is not the newest run of the workflow: nothing was stopped';
    END IF;
    SELECT dag_id INTO v_dag_id FROM workflow WHERE workflow_id = in_workflow_id;
    -- by this index, from its beginning, and no MAX: no run of another workflow is locked
    SELECT workflow_run_id INTO v_workflow_run_id FROM workflow_run FORCE INDEX (workflow_id)
    WHERE workflow_id = in_workflow_id AND status = 'R' LIMIT 1 FOR UPDATE;
    UPDATE workflow_run SET status = 'S' WHERE workflow_run_id = v_workflow_run_id;
    UPDATE workflow SET status = 'S' WHERE workflow_id = in_workflow_id;
    IF in_kill THEN
        -- claims that came before have committed, since they hold the run; those that come now find it stopped
        SELECT CONCAT('[', GROUP_CONCAT(job_id ORDER BY job_id), ']') INTO v_ids
        FROM job FORCE INDEX (status) WHERE dag_id = v_dag_id AND status IN ('I', 'R');
        CALL lock_jobs(v_ids);
        UPDATE JSON_TABLE(v_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS killed
            STRAIGHT_JOIN job_instance FORCE INDEX (attempt_once) ON job_instance.job_id = killed.job_id
        SET job_instance.error_message = CONCAT('Killed: workflow ', in_workflow_id, ' was stopped'), job_instance.status = 'E'
        WHERE job_instance.status IN ('I', 'B', 'R');
        SET v_num_killed = ROW_COUNT();
    END IF;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('num_killed', v_num_killed + 0, 'workflow_run_id', v_workflow_run_id + 0) AS document;
END
