CREATE PROCEDURE claim_notifications(
    in_claim_token VARCHAR(64),
    in_default_wf_slack_channel VARCHAR(150),
    in_default_node_slack_channel VARCHAR(150),
    in_lease_seconds INT UNSIGNED,
    in_max_notifications INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Takes notifications to be sent: of each channel the oldest one that is not sent yet, and only if it is due and no other monitor has it. So a channel is told in order, and one that can''t be told holds up no other. Who takes one says by log_notification what came of it; else another monitor takes it when the lease is over.
Access: JSM
Parameters:
  in_claim_token: made up by the caller, another one for each call; the call may be repeated under it
  in_default_wf_slack_channel: where to tell of runs and audits that have no channel; optional
  in_default_node_slack_channel: where to tell of nodes; optional, default the other one
  in_lease_seconds: optional, default 60
  in_max_notifications: optional, default 10
Returns: {"notifications": [{"notification_id", "kind", "channel", "message", "created_date", "num_attempts"}, ...]}: channel is null where there is none
Errors: MISSING_PARAMETER
Example: CALL claim_notifications(''m1'', ''jobmon'', NULL, 60, 10);
'
BEGIN
    DECLARE v_ids LONGTEXT;
    DECLARE v_document LONGTEXT;
    DECLARE v_max INT UNSIGNED DEFAULT LEAST(COALESCE(in_max_notifications, 10), 1000);
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
    IF in_claim_token IS NULL THEN
        CALL raise_missing_parameter('claim_token');
    END IF;
    CALL begin_work(v_owns);
    SET @@SESSION.group_concat_max_len = 67108864;
    SELECT CONCAT('[', GROUP_CONCAT(notification_id ORDER BY notification_id), ']') INTO v_ids FROM (
        SELECT MIN(notification_id) AS notification_id FROM notification FORCE INDEX (sent_date)
        WHERE sent_date IS NULL
        GROUP BY COALESCE(channel, IF(kind = 'NODE_FAILING', COALESCE(in_default_node_slack_channel, in_default_wf_slack_channel),
            in_default_wf_slack_channel))) AS heads;
    SELECT CONCAT('[', GROUP_CONCAT(notification_id ORDER BY notification_id), ']') INTO v_ids FROM (
        SELECT notification.notification_id
        FROM (SELECT notification_id FROM JSON_TABLE(v_ids, '$[*]' COLUMNS (notification_id BIGINT UNSIGNED PATH '$')) AS ids) AS heads
            STRAIGHT_JOIN notification FORCE INDEX (PRIMARY) ON notification.notification_id = heads.notification_id
        WHERE notification.sent_date IS NULL AND (notification.claim_token = in_claim_token
            OR COALESCE(notification.next_attempt_date <= UTC_TIMESTAMP(6), TRUE) AND COALESCE(notification.claimed_until <= UTC_TIMESTAMP(6), TRUE))
        LIMIT v_max FOR UPDATE SKIP LOCKED) AS locked;
    -- an attempt is counted once, however often this call is repeated
    UPDATE JSON_TABLE(v_ids, '$[*]' COLUMNS (notification_id BIGINT UNSIGNED PATH '$')) AS claimed
        STRAIGHT_JOIN notification FORCE INDEX (PRIMARY) ON notification.notification_id = claimed.notification_id
    SET notification.num_attempts = notification.num_attempts + 1, notification.claim_token = in_claim_token,
        notification.claimed_until = UTC_TIMESTAMP(6) + INTERVAL COALESCE(in_lease_seconds, 60) SECOND
    WHERE NOT notification.claim_token <=> in_claim_token;
    SELECT CONCAT('{"notifications": [', COALESCE(GROUP_CONCAT(JSON_OBJECT(
        'channel', COALESCE(notification.channel, IF(notification.kind = 'NODE_FAILING',
            COALESCE(in_default_node_slack_channel, in_default_wf_slack_channel), in_default_wf_slack_channel)),
        'created_date', DATE_FORMAT(notification.created_date, '%Y-%m-%dT%H:%i:%s.%f'),
        'kind', notification.kind,
        'message', cut_text(notification.message, 3500),
        'notification_id', notification.notification_id,
        'num_attempts', notification.num_attempts) ORDER BY notification.notification_id), ''), ']}') INTO v_document
    FROM JSON_TABLE(v_ids, '$[*]' COLUMNS (notification_id BIGINT UNSIGNED PATH '$')) AS claimed
        STRAIGHT_JOIN notification FORCE INDEX (PRIMARY) ON notification.notification_id = claimed.notification_id;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT v_document AS document;
END
