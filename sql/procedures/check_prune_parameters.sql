CREATE PROCEDURE check_prune_parameters(
    in_older_than_seconds BIGINT UNSIGNED,
    in_statuses VARCHAR(8)
)
    SQL SECURITY DEFINER
    NO SQL
    COMMENT '
Description: Refuses what can not be an age and workflow statuses to prune. R is refused: a workflow that is RUNNING is not finished.
Access: internal
Parameters:
  in_older_than_seconds: the age
  in_statuses: letters of workflow_status
Errors: MISSING_PARAMETER, INVALID_PARAMETER, UNKNOWN_STATUS
Example: CALL check_prune_parameters(86400, ''DE'');
'
BEGIN
    IF in_older_than_seconds IS NULL THEN
        CALL raise_missing_parameter('older_than_seconds');
    END IF;
    IF in_older_than_seconds > 3155760000 THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002, MESSAGE_TEXT = 'INVALID_PARAMETER: older_than_seconds is more than 100 years';
    END IF;
    IF in_statuses NOT REGEXP '^[CDES]+\\z' THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32005, MESSAGE_TEXT = 'UNKNOWN_STATUS: statuses to prune are letters of C, D, E and S';
    END IF;
END
