CREATE FUNCTION why_not_prunable(
    in_dag_id BIGINT UNSIGNED,
    in_before DATETIME(6),
    in_statuses VARCHAR(8)
)
    RETURNS VARCHAR(127)
    SQL SECURITY DEFINER
    NOT DETERMINISTIC
    READS SQL DATA
    COMMENT '
Description: What keeps a dag from being pruned. A dag may be pruned when each of its workflows has come to rest before in_before in one of in_statuses and has no live run; when no job of it is live and none has changed since; and when no client has given a sign of life since. A dag without a workflow counts as D if all of its jobs are DONE (or it has none), as E if one is ERROR_FATAL, else as C.
Access: internal
Parameters:
  in_dag_id: the dag
  in_before: only what was finished before
  in_statuses: letters of workflow_status
Returns: a sentence; NULL: nothing
Example: SELECT why_not_prunable(1, UTC_TIMESTAMP(6) - INTERVAL 90 DAY, ''D'');
'
BEGIN
    DECLARE v_id BIGINT UNSIGNED;
    DECLARE v_status CHAR(1);
    DECLARE v_num_workflows INT UNSIGNED;
    -- what most dags are kept by comes first: they are looked at by the thousand
    SELECT workflow_id, status INTO v_id, v_status FROM workflow
    WHERE dag_id = in_dag_id AND (LOCATE(status, in_statuses) = 0 OR status_date >= in_before) LIMIT 1;
    IF v_id IS NOT NULL THEN
        RETURN CONCAT('workflow ', v_id, ' is ', v_status, IF(LOCATE(v_status, in_statuses), ' since later', ''));
    END IF;
    SELECT dag_id INTO v_id FROM task_dag WHERE dag_id = in_dag_id AND (heartbeat_date >= in_before OR created_date >= in_before);
    IF v_id IS NOT NULL THEN
        RETURN 'a client of it has been alive later';
    END IF;
    SELECT workflow_run.workflow_run_id INTO v_id
    FROM workflow JOIN workflow_run ON workflow_run.workflow_id = workflow.workflow_id
    WHERE workflow.dag_id = in_dag_id AND workflow_run.status = 'R' LIMIT 1;
    IF v_id IS NOT NULL THEN
        RETURN CONCAT('workflow run ', v_id, ' is live');
    END IF;
    SELECT job_id, status INTO v_id, v_status FROM job FORCE INDEX (status)
    WHERE status IN ('I', 'R', 'E') AND dag_id = in_dag_id LIMIT 1;
    IF v_id IS NOT NULL THEN
        RETURN CONCAT('job ', v_id, ' is ', v_status);
    END IF;
    SELECT job_id INTO v_id FROM job WHERE dag_id = in_dag_id AND status_date >= in_before LIMIT 1;
    IF v_id IS NOT NULL THEN
        RETURN CONCAT('job ', v_id, ' has changed later');
    END IF;
    SELECT COUNT(*) INTO v_num_workflows FROM workflow WHERE dag_id = in_dag_id;
    IF v_num_workflows = 0 THEN
        SELECT CASE WHEN SUM(status = 'F') > 0 THEN 'E' WHEN SUM(status <> 'D') > 0 THEN 'C' ELSE 'D' END INTO v_status
        FROM job WHERE dag_id = in_dag_id;
        IF LOCATE(v_status, in_statuses) = 0 THEN
            RETURN CONCAT('it has no workflow, and by its jobs is ', v_status);
        END IF;
    END IF;
    RETURN NULL;
END
