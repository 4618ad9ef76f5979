-- Description: The dags that have this hash.
-- Access: JQS
-- Example: SELECT document FROM get_dag_ids_by_hash WHERE dag_hash = SHA2('sims', 256);
CREATE VIEW get_dag_ids_by_hash AS
SELECT dag_id, dag_hash, dag_id AS document FROM task_dag
