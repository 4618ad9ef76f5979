-- Description: The jobs of a dag in QUEUED_FOR_INSTANTIATION.
-- Access: JQS
-- Example: SELECT document FROM get_queued WHERE dag_id = 1;
CREATE VIEW get_queued AS
SELECT job_id, dag_id, document FROM job_dct WHERE status = 'Q'
