CREATE PROCEDURE get_api_errors()
    SQL SECURITY DEFINER
    READS SQL DATA
    COMMENT '
Description: The errors that the procedures and triggers raise, for who relays them.
Access: JSM
Returns: [{"errno", "name", "http_status", "message", "hint"}, ...]
Example: CALL get_api_errors();
'
BEGIN
    SELECT JSON_ARRAYAGG(JSON_OBJECT('errno', errno, 'hint', hint, 'http_status', http_status, 'message', message, 'name', name)) AS document
    FROM api_error;

END
