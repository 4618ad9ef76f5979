CREATE PROCEDURE raise_unknown_dag(
    in_dag_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    NO SQL
    COMMENT '
Description: Refuses a call for a dag that is not there.
Access: internal
Parameters:
  in_dag_id: the dag
Errors: UNKNOWN_DAG
Example: CALL raise_unknown_dag(1);
'
BEGIN
    DECLARE v_text VARCHAR(127) DEFAULT CONCAT('UNKNOWN_DAG: there is no dag ', in_dag_id);
    SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32020, MESSAGE_TEXT = v_text;
END
