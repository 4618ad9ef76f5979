-- Description: History, the gates of the downstream jobs, and the end of a live job instance whose job is reset.
--   (Downstream jobs themselves are queued by job_instance_after_update: a trigger can't touch its own table.)
CREATE TRIGGER job_after_update AFTER UPDATE ON job FOR EACH ROW
BEGIN
    DECLARE v_shard TINYINT UNSIGNED;
    DECLARE v_is_counted BOOLEAN DEFAULT TRUE;
    IF NEW.status <> OLD.status THEN
        -- lock_change_shard does it all; its first try stands here for speed (in a statement of its own, since one that reads
        -- change_shard can't call a function that locks it)
        SELECT change_shard, is_counted INTO v_shard, v_is_counted FROM change_shard
        WHERE change_shard = CONNECTION_ID() MOD 64 FOR UPDATE SKIP LOCKED;
        IF v_shard IS NULL THEN
            SET v_shard = lock_change_shard();
        END IF;
        -- Nodes of Galera know nothing of each other's locks: there (and only there rows are in it), of two transactions that write the
        -- same row one is refused. A table of its own: MySQL would forget SKIP LOCKED for one that the trigger also updates.
        IF v_is_counted THEN -- elsewhere it would cost each change a tenth more, for nothing
            UPDATE change_shard_count SET num_changes = num_changes + 1 WHERE change_shard = v_shard;
        END IF;
        INSERT INTO job_status_log (job_id, dag_id, from_status, status, attempt_number, change_shard, status_date)
        VALUES (NEW.job_id, NEW.dag_id, OLD.status, NEW.status, NEW.attempts_before_reset + NEW.num_attempts, v_shard, NEW.status_date);
        IF NEW.has_downstreams AND 'D' IN (OLD.status, NEW.status) THEN
            UPDATE job_edge FORCE INDEX (PRIMARY) STRAIGHT_JOIN job_gate FORCE INDEX (PRIMARY) ON job_gate.job_id = job_edge.downstream_job_id
            SET job_gate.upstreams_pending = IF(NEW.status = 'D', job_gate.upstreams_pending - 1, job_gate.upstreams_pending + 1)
            WHERE job_edge.upstream_job_id = NEW.job_id;
        END IF;
        IF NEW.status = 'G' THEN
            -- its attempt_number is no longer the current one, so it does not move the job
            UPDATE job_instance SET status = 'E', error_message = 'Job RESET requested'
            WHERE job_id = NEW.job_id AND status IN ('I', 'B', 'R');
        END IF;
    END IF;
END
