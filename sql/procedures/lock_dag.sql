CREATE PROCEDURE lock_dag(
    in_dag_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Locks a dag, exclusively, before anything in it (dag, jobs, instances, gates is the lock order). Callers
  that add to one dag take turns, and no shared lock of a foreign key stands in the way of a heartbeat.
Access: internal
Parameters:
  in_dag_id: the dag
Errors: UNKNOWN_DAG
Example: CALL lock_dag(in_dag_id);
'
BEGIN
    DECLARE v_dag_id BIGINT UNSIGNED;
    SELECT dag_id INTO v_dag_id FROM task_dag WHERE dag_id = in_dag_id FOR UPDATE;
    IF v_dag_id IS NULL THEN
        CALL raise_unknown_dag(in_dag_id);
    END IF;
END
