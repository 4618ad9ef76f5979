-- Description: All jobs of a dag.
-- Access: JQS
-- Example: SELECT document FROM get_jobs WHERE dag_id = 1;
CREATE VIEW get_jobs AS
SELECT job_id, dag_id, document FROM job_dct
