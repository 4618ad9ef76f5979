CREATE PROCEDURE raise_missing_parameter(
    in_name VARCHAR(64)
)
    SQL SECURITY DEFINER
    NO SQL
    COMMENT '
Description: Refuses a call in which a parameter that is needed was left out.
Access: internal
Parameters:
  in_name: the name on the wire, without in_
Errors: MISSING_PARAMETER
Example: CALL raise_missing_parameter(''job_id'');
'
BEGIN
    DECLARE v_text VARCHAR(127) DEFAULT CONCAT('MISSING_PARAMETER: ', in_name, ' is needed');
    SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32001, MESSAGE_TEXT = v_text;
END
