-- Description: The downstream job's gate counts an upstream that is not DONE.
CREATE TRIGGER job_edge_after_insert AFTER INSERT ON job_edge FOR EACH ROW
BEGIN
    DECLARE v_pending TINYINT UNSIGNED;
    -- under the lock that job_edge_before_insert took
    SELECT status <> 'D' INTO v_pending FROM job WHERE job_id = NEW.upstream_job_id FOR UPDATE;
    UPDATE job SET has_downstreams = 1 WHERE job_id = NEW.upstream_job_id AND has_downstreams = 0;
    INSERT INTO job_gate (job_id, upstreams_pending) VALUES (NEW.downstream_job_id, v_pending)
    ON DUPLICATE KEY UPDATE upstreams_pending = upstreams_pending + v_pending;
END
