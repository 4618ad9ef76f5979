CREATE PROCEDURE get_schema_version()
    SQL SECURITY DEFINER
    READS SQL DATA
    COMMENT '
Description: Which code fits this schema.
Access: JSM
Returns: {"compatible_since": n, "schema_version": n}
Example: CALL get_schema_version();
'
BEGIN
    SELECT JSON_OBJECT('compatible_since', compatible_since, 'schema_version', schema_version) AS document FROM schema_info;

END
