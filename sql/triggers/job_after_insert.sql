-- Description: History: the job was made.
CREATE TRIGGER job_after_insert AFTER INSERT ON job FOR EACH ROW
BEGIN
    DECLARE v_shard TINYINT UNSIGNED;
    DECLARE v_is_counted BOOLEAN DEFAULT TRUE;
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
    VALUES (NEW.job_id, NEW.dag_id, NULL, NEW.status, 0, v_shard, NEW.status_date);
END
