-- Description: Violations of: no DONE job with an upstream that is not DONE.
-- Access: JQS
-- Example: SELECT * FROM audit_done_after_upstreams;
CREATE VIEW audit_done_after_upstreams AS
SELECT downstream.job_id, upstream.job_id AS upstream_job_id, upstream.status AS upstream_status
FROM job_edge
    JOIN job AS upstream ON upstream.job_id = job_edge.upstream_job_id
    JOIN job AS downstream ON downstream.job_id = job_edge.downstream_job_id
WHERE downstream.status = 'D' AND upstream.status <> 'D'
