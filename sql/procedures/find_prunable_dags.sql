CREATE PROCEDURE find_prunable_dags(
    in_older_than_seconds BIGINT UNSIGNED,
    in_statuses VARCHAR(8),
    in_after_dag_id BIGINT UNSIGNED,
    in_max_dags INT UNSIGNED
)
    SQL SECURITY DEFINER
    READS SQL DATA
    COMMENT '
Description: The dags that may be pruned (see why_not_prunable), and those whose pruning has begun; by dag_id.
Access: internal
Parameters:
  in_older_than_seconds: finished at least so long ago
  in_statuses: letters of workflow_status; optional, default D
  in_after_dag_id: optional: with larger ids only
  in_max_dags: optional, default 100
Returns: {"dags": [{"dag_id", "name", "user", "num_jobs", "pruned_date"}, ...]}; pruned_date: null unless its pruning has begun
Errors: MISSING_PARAMETER, UNKNOWN_STATUS
Example: CALL find_prunable_dags(90 * 86400, ''D'', NULL, NULL);
'
BEGIN
    DECLARE v_max INT UNSIGNED DEFAULT LEAST(COALESCE(in_max_dags, 100), 10000);
    DECLARE v_statuses VARCHAR(8) DEFAULT COALESCE(in_statuses, 'D');
    DECLARE v_before DATETIME(6);
    DECLARE v_document LONGTEXT;
    CALL check_prune_parameters(in_older_than_seconds, v_statuses);
    SET v_before = UTC_TIMESTAMP(6) - INTERVAL in_older_than_seconds SECOND;
    SET @@SESSION.group_concat_max_len = 67108864;
    SELECT CONCAT('{"dags": [', COALESCE(GROUP_CONCAT(document ORDER BY dag_id), ''), ']}') INTO v_document FROM (
        SELECT task_dag.dag_id, JSON_OBJECT('dag_id', task_dag.dag_id, 'name', task_dag.name, 'user', task_dag.user,
            'num_jobs', (SELECT COUNT(*) FROM job WHERE job.dag_id = task_dag.dag_id),
            'pruned_date', DATE_FORMAT(pruned_dag.pruned_date, '%Y-%m-%dT%H:%i:%s')) AS document
        FROM task_dag LEFT JOIN pruned_dag ON pruned_dag.dag_id = task_dag.dag_id
        WHERE task_dag.dag_id > COALESCE(in_after_dag_id, 0)
            AND (pruned_dag.dag_id IS NOT NULL OR why_not_prunable(task_dag.dag_id, v_before, v_statuses) IS NULL)
        ORDER BY task_dag.dag_id LIMIT v_max) AS prunable;
    SELECT v_document AS document;
END
