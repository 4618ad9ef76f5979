CREATE PROCEDURE forget_notifications(
    in_older_than_seconds BIGINT UNSIGNED,
    in_max_rows INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Deletes notifications that were sent so long ago, in one small transaction. Those that were never sent stay.
Access: internal
Parameters:
  in_older_than_seconds: the age
  in_max_rows: optional, default 1000: at most so many in this call
Returns: {"num_rows": n}
Errors: MISSING_PARAMETER, INVALID_PARAMETER
Example: CALL forget_notifications(90 * 86400, NULL);
'
BEGIN
    DECLARE v_max INT UNSIGNED DEFAULT LEAST(COALESCE(in_max_rows, 1000), 10000);
    DECLARE v_before DATETIME(6);
    DECLARE v_ids LONGTEXT;
    DECLARE v_num_rows BIGINT DEFAULT 0;
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
    CALL check_prune_parameters(in_older_than_seconds, 'D');
    CALL begin_work(v_owns);
    SET @@SESSION.group_concat_max_len = 67108864;
    SET v_before = UTC_TIMESTAMP(6) - INTERVAL in_older_than_seconds SECOND;
    SELECT CONCAT('[', GROUP_CONCAT(notification_id ORDER BY notification_id), ']') INTO v_ids FROM (
        SELECT notification_id FROM notification WHERE sent_date < v_before ORDER BY sent_date LIMIT v_max) AS sent;
    CALL prune_rows('notification', 'id BIGINT UNSIGNED PATH ''$''', 'notification FORCE INDEX (PRIMARY) ON notification.notification_id = gone.id',
        v_ids, FALSE, v_num_rows);
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('num_rows', v_num_rows + 0) AS document;
END
