-- Description: Violations of: a job's gate counts its upstreams that are not DONE.
-- Access: JQS
-- Example: SELECT * FROM audit_gate;
CREATE VIEW audit_gate AS
SELECT counted.job_id, job_gate.upstreams_pending, counted.num_pending
FROM (
    SELECT job_edge.downstream_job_id AS job_id, SUM(upstream.status <> 'D') AS num_pending
    FROM job_edge JOIN job AS upstream ON upstream.job_id = job_edge.upstream_job_id
    GROUP BY job_edge.downstream_job_id) AS counted
    LEFT JOIN job_gate ON job_gate.job_id = counted.job_id
WHERE NOT (job_gate.upstreams_pending <=> counted.num_pending)
UNION ALL
-- a gate that nothing can open any more
SELECT job_gate.job_id, job_gate.upstreams_pending, 0 FROM job_gate
WHERE job_gate.upstreams_pending > 0
    AND NOT EXISTS (SELECT 1 FROM job_edge WHERE job_edge.downstream_job_id = job_gate.job_id)
