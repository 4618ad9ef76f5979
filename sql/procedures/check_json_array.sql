CREATE PROCEDURE check_json_array(
    in_name VARCHAR(64),
    in_array LONGTEXT
)
    SQL SECURITY DEFINER
    NO SQL
    COMMENT '
Description: Refuses what is no JSON array, or is too long for one call.
Access: internal
Parameters:
  in_name: the parameter''s name on the wire
  in_array: its value
Errors: INVALID_JSON_PARAMETER, TOO_MANY_ITEMS
Example: CALL check_json_array(''jobs'', in_jobs);
'
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_type VARCHAR(16);
    -- MySQL's JSON functions refuse more than 100 levels
    DECLARE EXIT HANDLER FOR 3157
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32003,
            MESSAGE_TEXT = 'INVALID_JSON_PARAMETER: the JSON document is nested too deeply';
    IF JSON_VALID(in_array) THEN
        SET v_type = JSON_TYPE(in_array);
    END IF;
    IF NOT (v_type <=> 'ARRAY') THEN
        SET v_text = CONCAT('INVALID_JSON_PARAMETER: ', in_name, ' must be a JSON array');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32003, MESSAGE_TEXT = v_text;
    END IF;
    IF JSON_LENGTH(in_array) > 10000 THEN
        SET v_text = CONCAT('TOO_MANY_ITEMS: ', in_name, ' has ', JSON_LENGTH(in_array), ' items, 10000 are the most');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32004, MESSAGE_TEXT = v_text;
    END IF;
END
