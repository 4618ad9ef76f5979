CREATE PROCEDURE log_notification(
    in_notification_id BIGINT UNSIGNED,
    in_claim_token VARCHAR(64),
    in_delivery VARCHAR(16),
    in_message_ts VARCHAR(64),
    in_error_message MEDIUMTEXT,
    in_retry_after_seconds INT UNSIGNED,
    in_needs_help BOOLEAN
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: What came of a notification that was claimed. It is sent, or it is tried again: when Slack has asked for it; every 15 min if that helps only after somebody has done something; else after 2, 4, 8 ... s, 10 min at most. Who says that it was sent is believed always, who says that it was not only while it is the one who claimed it.
Access: JSM
Parameters:
  in_notification_id: the notification
  in_claim_token: as given to claim_notifications
  in_delivery: SLACK or LOG if it was told, and how; null if it was not
  in_message_ts: Slack''s id of the message; optional
  in_error_message: why it was not told; cut to 1000 characters
  in_retry_after_seconds: how long Slack wants to be left alone; optional
  in_needs_help: true: the token, the channel or the like is wrong; optional, default false
Returns: {"accepted": true or false}: false: the notification is another monitor''s by now, or there is none
Errors: MISSING_PARAMETER, INVALID_PARAMETER
Example: CALL log_notification(1, ''m1'', ''SLACK'', ''1700000000.000100'', NULL, NULL, NULL);
'
BEGIN
    DECLARE v_accepted INT DEFAULT 0;
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
    IF in_notification_id IS NULL THEN
        CALL raise_missing_parameter('notification_id');
    END IF;
    IF in_claim_token IS NULL THEN
        CALL raise_missing_parameter('claim_token');
    END IF;
    IF in_delivery IS NULL AND in_error_message IS NULL THEN
        CALL raise_missing_parameter('error_message');
    END IF;
    IF in_delivery NOT IN ('SLACK', 'LOG') THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002, MESSAGE_TEXT = 'INVALID_PARAMETER: delivery must be SLACK or LOG';
    END IF;
    CALL begin_work(v_owns);
    IF in_delivery IS NOT NULL THEN
        UPDATE notification
        SET sent_date = UTC_TIMESTAMP(6), delivery = in_delivery, message_ts = in_message_ts, error_message = NULL,
            next_attempt_date = NULL, claim_token = NULL, claimed_until = NULL
        WHERE notification_id = in_notification_id AND sent_date IS NULL;
        SELECT COUNT(*) INTO v_accepted FROM notification WHERE notification_id = in_notification_id;
    ELSE
        UPDATE notification
        SET error_message = cut_text(in_error_message, 1000), claim_token = NULL, claimed_until = NULL,
            next_attempt_date = UTC_TIMESTAMP(6) + INTERVAL CASE
                WHEN in_retry_after_seconds IS NOT NULL THEN LEAST(in_retry_after_seconds, 86400)
                WHEN in_needs_help THEN 900
                ELSE LEAST(POW(2, LEAST(num_attempts, 10)), 600) END SECOND
        WHERE notification_id = in_notification_id AND sent_date IS NULL AND claim_token = in_claim_token;
        SET v_accepted = ROW_COUNT();
    END IF;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('accepted', JSON_EXTRACT(IF(v_accepted > 0, 'true', 'false'), '$')) AS document;
END
