CREATE PROCEDURE refuse_pruned_dag(
    in_dag_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Refuses a call that would add to a dag that is being pruned. To be called under the lock of the dag, of its workflow, or of the jobs concerned: pruning marks a dag under all of them.
Access: internal
Parameters:
  in_dag_id: the dag
Errors: DAG_PRUNED
Example: CALL refuse_pruned_dag(1);
'
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_dag_id BIGINT UNSIGNED;
    -- locking: this session's snapshot may be older than the mark
    SELECT dag_id INTO v_dag_id FROM pruned_dag WHERE dag_id = in_dag_id LOCK IN SHARE MODE;
    IF v_dag_id IS NOT NULL THEN
        SET v_text = CONCAT('DAG_PRUNED: dag ', in_dag_id, ' is being pruned');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32049, MESSAGE_TEXT = v_text;
    END IF;
END
