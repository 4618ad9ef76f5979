CREATE FUNCTION watched_seconds()
    RETURNS BIGINT UNSIGNED
    SQL SECURITY DEFINER
    NOT DETERMINISTIC
    READS SQL DATA
    COMMENT '
Description: For how long a health monitor has been watching without a pause, and still does. While the services, the database or
  the monitor were away, nobody could be heard: silence before that is no sign of death.
Access: internal
Returns: seconds; 0: nobody watches, or nobody has for longer than max_pause_seconds
Example: SELECT watched_seconds();
'
BEGIN
    DECLARE v_seconds BIGINT;
    SELECT watched_seconds INTO v_seconds FROM monitor_watch;
    RETURN COALESCE(v_seconds, 0);
END
