-- Description: Jobs as the wire protocol shows them (job_dct).
-- Access: internal
CREATE VIEW job_dct AS
SELECT job.job_id, job.dag_id, job.status, JSON_OBJECT(
    'command', job.command,
    'context_args', job.context_args,
    'dag_id', job.dag_id,
    'job_hash', job.job_hash,
    'job_id', job.job_id,
    'last_nodename', newest.nodename,
    'last_process_group_id', newest.process_group_id,
    'max_attempts', job.max_attempts,
    'mem_free', job.mem_free,
    'name', job.name,
    'num_attempts', job.num_attempts,
    'slots', job.slots,
    'status', job.status,
    'tag', job.tag) AS document
FROM job
    LEFT JOIN job_instance AS newest ON newest.job_id = job.job_id
        AND newest.attempt_number = job.attempts_before_reset + job.num_attempts
