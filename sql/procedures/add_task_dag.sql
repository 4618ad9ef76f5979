CREATE PROCEDURE add_task_dag(
    in_name VARCHAR(150),
    in_user VARCHAR(150),
    in_dag_hash VARCHAR(150),
    in_created_date VARCHAR(64),
    in_max_concurrently_running INT UNSIGNED,
    in_request_key VARCHAR(64),
    in_priority INT
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Makes a new dag. Equal hashes are normal: each workflow has a dag of its own.
Access: JSM
Parameters:
  in_name: a name for people; optional
  in_user: who owns it
  in_dag_hash: the digest that a resuming client looks for
  in_created_date: sent by emu clients and not used: clocks are the database''s
  in_max_concurrently_running: live job instances at a time; optional: no limit
  in_request_key: optional; the call may be repeated under it without a second dag
  in_priority: optional, default 0: who claims from all dags takes those of a higher one first
Returns: {"dag_id": n}
Errors: MISSING_PARAMETER, REQUEST_KEY_CONFLICT
Example: CALL add_task_dag(''sims'', ''ann'', SHA2(''sims'', 256), NULL, NULL, NULL, NULL);
'
BEGIN
    DECLARE v_document LONGTEXT;
    DECLARE v_owns BOOLEAN;
    DECLARE EXIT HANDLER FOR SQLEXCEPTION
    BEGIN
        IF v_owns THEN
            ROLLBACK;
        ELSEIF NOT v_owns THEN
            CALL undo_work();
        END IF;
        RESIGNAL;
    END;
    IF in_user IS NULL THEN
        CALL raise_missing_parameter('user');
    END IF;
    IF in_dag_hash IS NULL THEN
        CALL raise_missing_parameter('dag_hash');
    END IF;
    CALL begin_work(v_owns);
    CALL recall_request(in_request_key, 'add_task_dag', v_document);
    IF v_document IS NULL THEN
        INSERT INTO task_dag (name, user, dag_hash, max_concurrently_running, priority)
        VALUES (in_name, in_user, in_dag_hash, in_max_concurrently_running, COALESCE(in_priority, 0));
        SET v_document = JSON_OBJECT('dag_id', LAST_INSERT_ID());
        UPDATE api_request SET answer = v_document WHERE request_key = in_request_key;
    END IF;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT v_document AS document;
END
