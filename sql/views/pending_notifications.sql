-- Description: What is to be told to each channel (null: the default one) and is not yet: how many, since when, and the last error.
-- Access: JQS
-- Example: SELECT * FROM pending_notifications;
CREATE VIEW pending_notifications AS
SELECT heads.channel, heads.num_pending,
    GREATEST(TIMESTAMPDIFF(SECOND, oldest.created_date, UTC_TIMESTAMP(6)), 0) AS oldest_seconds,
    oldest.num_attempts, oldest.next_attempt_date, oldest.error_message
FROM (
    SELECT channel, COUNT(*) AS num_pending, MIN(notification_id) AS notification_id FROM notification FORCE INDEX (sent_date)
    WHERE sent_date IS NULL GROUP BY channel) AS heads
    STRAIGHT_JOIN notification AS oldest FORCE INDEX (PRIMARY) ON oldest.notification_id = heads.notification_id
