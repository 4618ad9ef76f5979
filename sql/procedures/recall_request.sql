CREATE PROCEDURE recall_request(
    in_request_key VARCHAR(64),
    in_procedure_name VARCHAR(64),
    OUT out_answer LONGTEXT
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: For calls that would do a thing anew each time: a call repeated under its request_key finds the answer that
  was given. The key''s row is inserted first, so the same call at the same time waits for the outcome of this one.
Access: internal
Parameters:
  in_request_key: NULL: the caller sent none, and nothing is remembered
  in_procedure_name: the procedure that asks
  out_answer: the answer given before; NULL: go on, then UPDATE api_request SET answer
Errors: REQUEST_KEY_CONFLICT
Example: CALL recall_request(in_request_key, ''add_task_dag'', v_document);
'
BEGIN
    DECLARE v_procedure_name VARCHAR(64);
    SET out_answer = NULL;
    IF in_request_key IS NOT NULL THEN
        -- the upsert takes an exclusive lock; a plain INSERT that meets a duplicate keeps a shared one, and those who
        -- wait here together would deadlock
        INSERT INTO api_request (request_key, procedure_name) VALUES (in_request_key, in_procedure_name)
        ON DUPLICATE KEY UPDATE request_key = in_request_key;
        -- a locking read: it sees what was committed while the INSERT waited
        SELECT procedure_name, answer INTO v_procedure_name, out_answer FROM api_request
        WHERE request_key = in_request_key FOR UPDATE;
        IF v_procedure_name <> in_procedure_name THEN
            SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32043,
                MESSAGE_TEXT = 'REQUEST_KEY_CONFLICT: this request_key was used for another procedure';
        END IF;
    END IF;
END
