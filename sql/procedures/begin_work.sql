CREATE PROCEDURE begin_work(
    OUT out_owns BOOLEAN
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Starts a READ COMMITTED transaction, or joins the one that the caller has started. Outside of a transaction
  a savepoint is gone at once, so rolling back to it tells the two apart, on MySQL and on MariaDB.
Access: internal
Parameters:
  out_owns: whether a transaction was started here. Who owns it commits it or rolls it back; who joined one
    releases the savepoint jobmon, or calls undo_work.
Example: CALL begin_work(v_owns);
'
BEGIN
    DECLARE CONTINUE HANDLER FOR 1305 SET out_owns = TRUE;
    SET out_owns = FALSE;
    SAVEPOINT jobmon;
    ROLLBACK TO SAVEPOINT jobmon;
    IF out_owns THEN
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        START TRANSACTION;
    END IF;
END
