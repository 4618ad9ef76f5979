CREATE PROCEDURE open_tables()
    SQL SECURITY DEFINER
    READS SQL DATA
    COMMENT '
Description: Makes the server open each table with triggers 40 times and keep that, so that it reads no trigger in the middle of a transaction: a node of Galera that ends a transaction at that moment keeps what it has read of the trigger by then. JSM calls this in each new session on a node of Galera.
Access: JSM
Returns: {"num_tables"}
Example: CALL open_tables();
'
BEGIN
    DECLARE v_statement LONGTEXT;
    DECLARE v_num_tables INT DEFAULT 0;
    DECLARE v_lock VARCHAR(64) DEFAULT CONCAT('jobmon_open_tables_', LEFT(SHA2(DATABASE(), 256), 40));
    DECLARE EXIT HANDLER FOR SQLEXCEPTION
    BEGIN
        DO RELEASE_LOCK(v_lock);
        RESIGNAL;
    END;
    SET @@SESSION.group_concat_max_len = 67108864;
    SELECT COUNT(*), GROUP_CONCAT(REPEAT(CONCAT(' UNION ALL SELECT 1 FROM `', name, '` WHERE FALSE'), 40) SEPARATOR '') INTO v_num_tables, v_statement
    FROM (SELECT DISTINCT EVENT_OBJECT_TABLE AS name FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()) AS tables_with_triggers;
    -- one session after the other: what the first has opened is there for those after it
    IF v_num_tables > 0 AND GET_LOCK(v_lock, 10) = 1 THEN
        SET @jobmon_statement = CONCAT('SELECT COUNT(*) INTO @jobmon_num_rows FROM (SELECT 1 FROM DUAL WHERE FALSE', v_statement, ') AS opened');
        PREPARE jobmon_open FROM @jobmon_statement;
        EXECUTE jobmon_open;
        DEALLOCATE PREPARE jobmon_open;
        SET @jobmon_statement = NULL;
        DO RELEASE_LOCK(v_lock);
    END IF;
    SELECT CONCAT('{"num_tables": ', v_num_tables, '}') AS document;
END
