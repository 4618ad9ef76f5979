CREATE PROCEDURE forget_requests(
    in_older_than_seconds BIGINT UNSIGNED,
    in_max_rows INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Forgets the answers of calls that had a request_key and are too old to be repeated; the oldest first, in one small transaction. Anybody may call it at any time; rows that another caller is deleting are passed over.
Access: JSM
Parameters:
  in_older_than_seconds: optional, default 86400 (a day), at least 3600: clients may repeat a call for so long
  in_max_rows: optional, default 1000, at most 10000: at most so many in this call; fewer were left if fewer are deleted
Returns: {"num_rows": n}
Errors: INVALID_PARAMETER
Example: CALL forget_requests(NULL, NULL);
'
BEGIN
    DECLARE v_max INT UNSIGNED DEFAULT LEAST(COALESCE(in_max_rows, 1000), 10000);
    DECLARE v_before DATETIME(6);
    DECLARE v_keys LONGTEXT;
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
    IF in_older_than_seconds < 3600 OR in_older_than_seconds > 3155760000 THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002, MESSAGE_TEXT = 'INVALID_PARAMETER: older_than_seconds is from 3600 (an hour) to 100 years';
    END IF;
    CALL begin_work(v_owns);
    SET @@SESSION.group_concat_max_len = 67108864;
    SET v_before = UTC_TIMESTAMP(6) - INTERVAL COALESCE(in_older_than_seconds, 86400) SECOND;
    -- Who repeats a call locks its row by the primary key and waits for nothing here: rows are found without a lock, then locked
    -- by that key, or passed over.
    SELECT JSON_ARRAYAGG(request_key) INTO v_keys FROM (
        SELECT request_key FROM api_request WHERE created_date < v_before ORDER BY created_date LIMIT v_max) AS old;
    SELECT JSON_ARRAYAGG(request_key) INTO v_keys FROM (
        SELECT api_request.request_key
        FROM (SELECT request_key FROM JSON_TABLE(v_keys, '$[*]' COLUMNS (request_key VARCHAR(64) PATH '$')) AS listed) AS old
            STRAIGHT_JOIN api_request FORCE INDEX (PRIMARY) ON api_request.request_key = old.request_key
        FOR UPDATE SKIP LOCKED) AS locked;
    CALL prune_rows('api_request', 'request_key VARCHAR(64) PATH ''$''', 'api_request FORCE INDEX (PRIMARY) ON api_request.request_key = gone.request_key',
        v_keys, FALSE, v_num_rows);
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('num_rows', v_num_rows + 0) AS document;
END
