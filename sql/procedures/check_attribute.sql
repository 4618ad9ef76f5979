CREATE PROCEDURE check_attribute(
    in_owner VARCHAR(64),
    in_attribute_type INT UNSIGNED,
    in_value_type VARCHAR(16),
    in_value VARCHAR(255)
)
    SQL SECURITY DEFINER
    NO SQL
    COMMENT '
Description: Refuses an attribute whose type is unknown or whose value does not fit its type.
Access: internal
Parameters:
  in_owner: what has the attribute: job, workflow or workflow_run
  in_attribute_type: the attribute type
  in_value_type: the value_type of its row; NULL: there is none
  in_value: the value
Errors: UNKNOWN_ATTRIBUTE_TYPE, INVALID_ATTRIBUTE_VALUE
Example: CALL check_attribute(''job'', 1, ''int'', ''12'');
'
BEGIN
    DECLARE v_text VARCHAR(127);
    IF in_value_type IS NULL THEN
        SET v_text = CONCAT('UNKNOWN_ATTRIBUTE_TYPE: there is no attribute type ', in_attribute_type, ' of a ', in_owner);
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32006, MESSAGE_TEXT = v_text;
    END IF;
    IF in_value_type = 'int' AND in_value NOT REGEXP '^[-+]?[0-9]+\\z' THEN
        SET v_text = CONCAT('INVALID_ATTRIBUTE_VALUE: attribute type ', in_attribute_type, ' takes a whole number');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32007, MESSAGE_TEXT = v_text;
    END IF;
END
