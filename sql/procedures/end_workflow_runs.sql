CREATE PROCEDURE end_workflow_runs()
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Ends all submitted live runs whose jobs have ended, as end_workflow_run does. A run that somebody else has locked is passed over; the next call finds it.
Access: JSM
Returns: {"workflow_runs": [{"workflow_run_id", "workflow_id", "status"}, ...]}: those that were ended
Example: CALL end_workflow_runs();
'
BEGIN
    DECLARE v_ids LONGTEXT;
    DECLARE v_document LONGTEXT;
    DECLARE v_position INT UNSIGNED DEFAULT 0;
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
    CALL begin_work(v_owns);
    SET @@SESSION.group_concat_max_len = 67108864;
    SELECT CONCAT('[', GROUP_CONCAT(JSON_OBJECT('workflow_id', workflow_id, 'workflow_run_id', workflow_run_id) ORDER BY workflow_id), ']')
    INTO v_ids FROM finished_runs;
    -- Many runs are locked here, and a claim locks many too, in another order: who waited for one while it holds others could
    -- wait for ever. (The derived table: MySQL refuses FOR UPDATE beside a bare JSON_TABLE.)
    SELECT CONCAT('[', GROUP_CONCAT(workflow_run_id ORDER BY workflow_id), ']') INTO v_ids FROM (
        SELECT workflow.workflow_id, workflow_run.workflow_run_id
        FROM (SELECT workflow_id, workflow_run_id FROM JSON_TABLE(v_ids, '$[*]' COLUMNS (
                workflow_id BIGINT UNSIGNED PATH '$.workflow_id', workflow_run_id BIGINT UNSIGNED PATH '$.workflow_run_id')) AS ids) AS finished
            STRAIGHT_JOIN workflow FORCE INDEX (PRIMARY) ON workflow.workflow_id = finished.workflow_id
            STRAIGHT_JOIN workflow_run FORCE INDEX (PRIMARY) ON workflow_run.workflow_run_id = finished.workflow_run_id
        WHERE workflow_run.status = 'R' FOR UPDATE SKIP LOCKED) AS locked;
    WHILE v_position < COALESCE(JSON_LENGTH(v_ids), 0) DO
        CALL end_run_if_finished(JSON_EXTRACT(v_ids, CONCAT('$[', v_position, ']')));
        SET v_position = v_position + 1;
    END WHILE;
    SELECT CONCAT('{"workflow_runs": [', COALESCE(GROUP_CONCAT(JSON_OBJECT('status', workflow_run.status,
        'workflow_id', workflow_run.workflow_id, 'workflow_run_id', workflow_run.workflow_run_id) ORDER BY workflow_run.workflow_run_id), ''), ']}') INTO v_document
    FROM JSON_TABLE(v_ids, '$[*]' COLUMNS (workflow_run_id BIGINT UNSIGNED PATH '$')) AS looked_at
        JOIN workflow_run ON workflow_run.workflow_run_id = looked_at.workflow_run_id
    WHERE workflow_run.status <> 'R';
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT v_document AS document;
END
