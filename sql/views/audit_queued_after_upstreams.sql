-- Description: Violations of: no job that is queued, or was since, with an upstream that is not DONE.
-- Access: JQS
-- Example: SELECT * FROM audit_queued_after_upstreams;
CREATE VIEW audit_queued_after_upstreams AS
SELECT downstream.job_id, downstream.status, upstream.job_id AS upstream_job_id, upstream.status AS upstream_status
FROM job_edge
    JOIN job AS upstream ON upstream.job_id = job_edge.upstream_job_id
    JOIN job AS downstream ON downstream.job_id = job_edge.downstream_job_id
WHERE downstream.status IN ('Q', 'I', 'R', 'E', 'F') AND upstream.status <> 'D'
