-- Description: What a worker must know of a job instance to run it.
-- Access: internal
CREATE VIEW job_instance_work AS
SELECT job_instance.job_instance_id, job_instance.job_id, job_instance.attempt_number,
    job.attempts_before_reset + job.num_attempts AS newest_attempt_number, JSON_OBJECT(
    'attempt_number', job_instance.attempt_number,
    'command', job.command,
    'context_args', job.context_args,
    'dag_id', job.dag_id,
    'job_id', job.job_id,
    'job_instance_id', job_instance.job_instance_id,
    'lease_seconds', job_instance.lease_seconds,
    'max_attempts', job.max_attempts,
    'max_runtime', job.max_runtime,
    'mem_free', job.mem_free,
    'name', job.name,
    'project', workflow_run.project,
    'slots', job.slots,
    'stderr', workflow_run.stderr,
    'stdout', workflow_run.stdout,
    'tag', job.tag,
    'workflow_run_id', job_instance.workflow_run_id,
    'working_dir', workflow_run.working_dir) AS document
FROM job
    JOIN job_instance ON job_instance.job_id = job.job_id
    LEFT JOIN workflow_run ON workflow_run.workflow_run_id = job_instance.workflow_run_id
