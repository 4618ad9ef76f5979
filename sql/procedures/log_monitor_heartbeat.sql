CREATE PROCEDURE log_monitor_heartbeat(
    in_poll_seconds INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: A health monitor looks at everything again, and heartbeats could come in the meantime. If the last look was more than three times poll_seconds ago, that was a pause: silence is counted anew from now on.
Access: JSM
Parameters:
  in_poll_seconds: how often this monitor looks; optional, default 10
Returns: {}
Errors: INVALID_PARAMETER
Example: CALL log_monitor_heartbeat(10);
'
BEGIN
    DECLARE v_max_pause_seconds INT UNSIGNED DEFAULT 3 * LEAST(COALESCE(in_poll_seconds, 10), 86400);
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
    IF in_poll_seconds = 0 THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002, MESSAGE_TEXT = 'INVALID_PARAMETER: poll_seconds must be 1 or more';
    END IF;
    CALL begin_work(v_owns);
    -- Assigned from left to right: watched_since is judged by the old check_date. (That may be a little ahead: another monitor had
    -- the row while this statement waited for it. A clock that was set back farther is a pause.)
    INSERT INTO monitor_check (check_name, check_date, watched_since, max_pause_seconds)
    VALUES ('heartbeats', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), v_max_pause_seconds)
    ON DUPLICATE KEY UPDATE
        watched_since = IF(UTC_TIMESTAMP(6) BETWEEN check_date - INTERVAL 5 SECOND AND check_date + INTERVAL v_max_pause_seconds SECOND,
            watched_since, UTC_TIMESTAMP(6)),
        check_date = UTC_TIMESTAMP(6), max_pause_seconds = v_max_pause_seconds;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT '{}' AS document;
END
