CREATE PROCEDURE log_replication_heartbeat()
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Writes the time, once a second at most: its age on a replica is how far that is behind. JSM calls it where replicas can be.
Access: JSM
Returns: {}
Example: CALL log_replication_heartbeat();
'
BEGIN
    DECLARE v_owns BOOLEAN;
    DECLARE EXIT HANDLER FOR SQLEXCEPTION
    BEGIN
        IF v_owns THEN
            ROLLBACK;
        ELSEIF NOT v_owns THEN
            CALL undo_work();
        END IF;
        RESIGNAL;
    END;
    CALL begin_work(v_owns);
    -- what stays as it is is not written to the log: many processes make one change a second
    INSERT INTO replication_heartbeat (replication_heartbeat_id, heartbeat_date) VALUES (1, UTC_TIMESTAMP(6))
    ON DUPLICATE KEY UPDATE heartbeat_date = IF(heartbeat_date <= UTC_TIMESTAMP(6) - INTERVAL 900000 MICROSECOND, UTC_TIMESTAMP(6), heartbeat_date);
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT '{}' AS document;
END
