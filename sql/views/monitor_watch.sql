-- Description: For how long a health monitor has been watching without a pause, and still does: 0 if none has looked for longer
--   than max_pause_seconds. No row: none ever has.
-- Access: internal
CREATE VIEW monitor_watch AS
SELECT TIMESTAMPDIFF(MICROSECOND, check_date, UTC_TIMESTAMP(6)) / 1000000 AS seconds_since_check, max_pause_seconds,
    IF(UTC_TIMESTAMP(6) <= check_date + INTERVAL max_pause_seconds SECOND,
        GREATEST(TIMESTAMPDIFF(SECOND, watched_since, UTC_TIMESTAMP(6)), 0), 0) AS watched_seconds
FROM monitor_check WHERE check_name = 'heartbeats'
