CREATE PROCEDURE undo_work()
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Takes back what a procedure did in the transaction of its caller. After a deadlock the server has rolled
  back the whole transaction and the savepoint is gone; the caller gets to see the deadlock, not that.
Access: internal
Example: CALL undo_work();
'
BEGIN
    DECLARE CONTINUE HANDLER FOR 1305 BEGIN END;
    ROLLBACK TO SAVEPOINT jobmon;
END
