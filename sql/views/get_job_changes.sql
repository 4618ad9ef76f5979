-- Description: Every status each job got. Within a shard, change_id is in commit order: who remembers the last change_id of
--   each shard and asks for larger ones misses nothing, however late a transaction commits.
-- Access: JQS
-- Example: SELECT document FROM get_job_changes WHERE shard = 7 AND change_id > 4711 ORDER BY change_id;
CREATE VIEW get_job_changes AS
SELECT change_shard AS shard, job_status_log_id AS change_id, dag_id, JSON_OBJECT(
    'attempt_number', attempt_number,
    'change_id', job_status_log_id,
    'dag_id', dag_id,
    'from_status', from_status,
    'job_id', job_id,
    'status', status,
    'status_date', DATE_FORMAT(status_date, '%Y-%m-%dT%H:%i:%s.%f')) AS document
FROM job_status_log
