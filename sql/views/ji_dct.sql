-- Description: Job instances as the wire protocol shows them (ji_dct).
-- Access: internal
CREATE VIEW ji_dct AS
SELECT job_instance.job_instance_id, job_instance.job_id, job_instance.workflow_run_id, job_instance.status,
    job.dag_id, job.max_runtime, job_instance.running_date, JSON_OBJECT(
    -- a number where it is one, as emu clients expect
    'executor_id', IF(job_instance.executor_id REGEXP '^(0|[1-9][0-9]{0,17})\\z',
        JSON_EXTRACT(job_instance.executor_id, '$'), JSON_EXTRACT(JSON_QUOTE(job_instance.executor_id), '$')),
    'job_id', job_instance.job_id,
    'job_instance_id', job_instance.job_instance_id,
    'nodename', job_instance.nodename,
    'process_group_id', job_instance.process_group_id,
    'status', job_instance.status,
    'status_date', DATE_FORMAT(job_instance.status_date, '%Y-%m-%dT%H:%i:%s'),
    'time_since_status_update', GREATEST(TIMESTAMPDIFF(SECOND, job_instance.status_date, UTC_TIMESTAMP(6)), 0),
    'workflow_run_id', job_instance.workflow_run_id) AS document
FROM job_instance JOIN job ON job.job_id = job_instance.job_id
