CREATE PROCEDURE reopen_tables()
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Makes the server open all tables anew, so that it reads their triggers again. A node of Galera may keep a trigger that it had read in part when another node''s transaction went first; JSM calls this when a call fails by that, as FLUSH TABLES needs a privilege that nobody has here.
Access: JSM
Returns: {"num_tables"}: none in a transaction of the caller, which would be committed by it
Example: CALL reopen_tables();
'
BEGIN
    DECLARE v_owns BOOLEAN;
    DECLARE v_done BOOLEAN DEFAULT FALSE;
    DECLARE v_table VARCHAR(64);
    DECLARE v_num_tables INT DEFAULT 0;
    DECLARE v_lock_wait_timeout INT UNSIGNED DEFAULT @@SESSION.lock_wait_timeout;
    DECLARE base_tables CURSOR FOR
        SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE';
    DECLARE CONTINUE HANDLER FOR NOT FOUND SET v_done = TRUE;
    DECLARE EXIT HANDLER FOR SQLEXCEPTION
    BEGIN
        SET @@SESSION.lock_wait_timeout = v_lock_wait_timeout;
        RESIGNAL;
    END;
    CALL begin_work(v_owns);
    IF v_owns THEN
        COMMIT;
        -- who waits here for a long transaction holds up all that come after
        SET @@SESSION.lock_wait_timeout = 5;
        OPEN base_tables;
        FETCH base_tables INTO v_table;
        WHILE NOT v_done DO
            -- changes nothing in InnoDB, and closes the table everywhere
            SET @jobmon_statement = CONCAT('ALTER TABLE `', v_table, '` ENABLE KEYS');
            PREPARE jobmon_reopen FROM @jobmon_statement;
            EXECUTE jobmon_reopen;
            SET v_num_tables = v_num_tables + 1;
            FETCH base_tables INTO v_table;
        END WHILE;
        CLOSE base_tables;
        DEALLOCATE PREPARE jobmon_reopen;
        SET @jobmon_statement = NULL;
        SET @@SESSION.lock_wait_timeout = v_lock_wait_timeout;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT CONCAT('{"num_tables": ', v_num_tables, '}') AS document;
END
