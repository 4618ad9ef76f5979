CREATE PROCEDURE start_prune(
    in_dag_id BIGINT UNSIGNED,
    in_older_than_seconds BIGINT UNSIGNED,
    in_statuses VARCHAR(8)
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Marks a dag as being pruned, if it may be (see why_not_prunable). From then on nothing of it can be started or changed (DAG_PRUNED), and prune_dag deletes it in small transactions. There is no way back: what is marked is deleted, by this run or the next. A dag that is marked already stays so.
Access: internal
Parameters:
  in_dag_id: the dag
  in_older_than_seconds: finished at least so long ago
  in_statuses: letters of workflow_status; optional, default D
Returns: {"started": true or false, "reason": why not, or null, "archived": whether a file has all of its rows}
Errors: MISSING_PARAMETER, INVALID_PARAMETER, UNKNOWN_STATUS, UNKNOWN_DAG
Example: CALL start_prune(1, 90 * 86400, ''D'');
'
BEGIN
    DECLARE v_ids LONGTEXT;
    DECLARE v_reason VARCHAR(127);
    DECLARE v_marked BIGINT UNSIGNED;
    DECLARE v_archived BOOLEAN DEFAULT FALSE;
    DECLARE v_count BIGINT;
    DECLARE v_statuses VARCHAR(8) DEFAULT COALESCE(in_statuses, 'D');
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
    CALL check_prune_parameters(in_older_than_seconds, v_statuses);
    CALL begin_work(v_owns);
    SET @@SESSION.group_concat_max_len = 67108864;
    CALL lock_dag(in_dag_id);
    SELECT dag_id, archived_date IS NOT NULL INTO v_marked, v_archived FROM pruned_dag WHERE dag_id = in_dag_id;
    IF v_marked IS NULL THEN
        -- Whoever starts a run takes its workflow's lock, whoever changes a job that job's. So when all are held, whatever was
        -- under way has been committed and is seen below, and whatever comes later finds the mark.
        SELECT COUNT(*) INTO v_count FROM workflow FORCE INDEX (workflow_args_once) WHERE dag_id = in_dag_id FOR UPDATE;
        SELECT CONCAT('[', GROUP_CONCAT(job_id ORDER BY job_id), ']') INTO v_ids FROM job WHERE dag_id = in_dag_id;
        CALL lock_jobs(v_ids);
        SET v_reason = why_not_prunable(in_dag_id, UTC_TIMESTAMP(6) - INTERVAL in_older_than_seconds SECOND, v_statuses);
        IF v_reason IS NULL THEN
            INSERT INTO pruned_dag (dag_id) VALUES (in_dag_id);
        END IF;
    END IF;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('archived', JSON_EXTRACT(IF(v_archived, 'true', 'false'), '$'), 'reason', v_reason,
        'started', JSON_EXTRACT(IF(v_reason IS NULL, 'true', 'false'), '$')) AS document;
END
