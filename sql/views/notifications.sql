-- Description: What was told or is to be told to Slack, and what came of it.
-- Access: JQS
-- Example: SELECT * FROM notifications WHERE state = 'PENDING';
CREATE VIEW notifications AS
SELECT notification_id, kind, channel, message, created_date, IF(sent_date IS NULL, 'PENDING', 'SENT') AS state, sent_date, delivery,
    num_attempts, next_attempt_date, error_message
FROM notification
