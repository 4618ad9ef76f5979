CREATE PROCEDURE retry_notifications()
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Makes due what waits for its next attempt after an error: a health monitor that starts may have another token. What Slack has asked to be left alone for stays so.
Access: JSM
Returns: {"num_notifications": n}
Example: CALL retry_notifications();
'
BEGIN
    DECLARE v_ids LONGTEXT;
    DECLARE v_num_notifications INT UNSIGNED;
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
    SET @@SESSION.group_concat_max_len = 67108864;
    SELECT CONCAT('[', GROUP_CONCAT(notification_id ORDER BY notification_id), ']') INTO v_ids
    FROM notification FORCE INDEX (sent_date)
    WHERE sent_date IS NULL AND next_attempt_date > UTC_TIMESTAMP(6) AND error_message NOT LIKE 'ratelimited%';
    UPDATE JSON_TABLE(v_ids, '$[*]' COLUMNS (notification_id BIGINT UNSIGNED PATH '$')) AS waiting
        STRAIGHT_JOIN notification FORCE INDEX (PRIMARY) ON notification.notification_id = waiting.notification_id
    SET notification.next_attempt_date = NULL
    WHERE notification.sent_date IS NULL;
    SET v_num_notifications = COALESCE(JSON_LENGTH(v_ids), 0);
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('num_notifications', v_num_notifications + 0) AS document;
END
