CREATE PROCEDURE get_database_id()
    SQL SECURITY DEFINER
    READS SQL DATA
    COMMENT '
Description: Which database this is: 8 lower-case hexadecimal digits, random and never changed. Names of what a scheduler is given have them in it, so that nobody takes another Jobmon''s jobs for its own.
Access: JSM
Returns: {"database_id": text}
Example: CALL get_database_id();
'
BEGIN
    SELECT JSON_OBJECT('database_id', database_id) AS document FROM schema_info;

END
