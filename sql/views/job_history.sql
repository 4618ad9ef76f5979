-- Description: Every status each job had, and why it changed.
-- Access: JQS
-- Example: SELECT * FROM job_history WHERE job_id = 1;
CREATE VIEW job_history AS
SELECT log.job_status_log_id, log.job_id, log.dag_id, before_it.label AS from_status, after_it.label AS status,
    log.attempt_number, log.status_date, job_transition.reason
FROM job_status_log AS log
    JOIN job_status AS after_it ON after_it.status = log.status
    LEFT JOIN job_status AS before_it ON before_it.status = log.from_status
    LEFT JOIN job_transition ON job_transition.from_status = log.from_status AND job_transition.to_status = log.status
