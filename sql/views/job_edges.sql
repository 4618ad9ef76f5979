-- Description: Which job waits for which, with names and labels.
-- Access: JQS
-- Example: SELECT upstream_name, upstream_status FROM job_edges WHERE downstream_job_id = 2;
CREATE VIEW job_edges AS
SELECT job_edge.upstream_job_id, job_edge.downstream_job_id, downstream.dag_id, upstream.name AS upstream_name,
    upstream_status.label AS upstream_status, downstream.name AS downstream_name, downstream_status.label AS downstream_status
FROM job_edge
    JOIN job AS upstream ON upstream.job_id = job_edge.upstream_job_id
    JOIN job AS downstream ON downstream.job_id = job_edge.downstream_job_id
    JOIN job_status AS upstream_status ON upstream_status.status = upstream.status
    JOIN job_status AS downstream_status ON downstream_status.status = downstream.status
