CREATE FUNCTION lock_change_shard()
    RETURNS TINYINT UNSIGNED
    SQL SECURITY DEFINER
    NOT DETERMINISTIC
    READS SQL DATA
    COMMENT '
Description: Picks a row of change_shard and locks it until the transaction ends. A row of job_status_log is written
  under such a lock, and its id is taken after the lock: so within a shard ids are in commit order, and who reads each
  shard from the last id seen there misses nothing. The start depends on the connection and locked rows are skipped:
  writers do not wait for each other unless all 64 shards are held.
Access: internal
Returns: the shard
'
BEGIN
    DECLARE v_shard TINYINT UNSIGNED;
    SELECT change_shard INTO v_shard FROM change_shard
    WHERE change_shard >= CONNECTION_ID() MOD 64 ORDER BY change_shard LIMIT 1 FOR UPDATE SKIP LOCKED;
    IF v_shard IS NULL THEN
        SELECT change_shard INTO v_shard FROM change_shard ORDER BY change_shard LIMIT 1 FOR UPDATE SKIP LOCKED;
    END IF;
    IF v_shard IS NULL THEN
        SELECT change_shard INTO v_shard FROM change_shard WHERE change_shard = CONNECTION_ID() MOD 64 FOR UPDATE;
    END IF;
    RETURN v_shard;
END
