-- Description: How many jobs of each dag are in each status.
-- Access: JQS
-- Example: SELECT status, num_jobs FROM job_status_counts WHERE dag_id = 1;
CREATE VIEW job_status_counts AS
SELECT job.dag_id, job_status.label AS status, COUNT(*) AS num_jobs
FROM job JOIN job_status ON job_status.status = job.status
GROUP BY job.dag_id, job_status.label
