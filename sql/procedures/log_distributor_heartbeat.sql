CREATE PROCEDURE log_distributor_heartbeat()
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: A distributor that serves all submitted runs is up: moves the heartbeats of all submitted live runs, also of those whose jobs merely wait for a free place. A run that somebody else has locked is passed over.
Access: JSM
Returns: {"num_workflow_runs": n}: those whose heartbeat was older than 10 s, and was moved
Example: CALL log_distributor_heartbeat();
'
BEGIN
    DECLARE v_ids LONGTEXT;
    DECLARE v_num_workflow_runs INT UNSIGNED;
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
    -- one of many distributors is enough; and of rows that others have, one waited for here would hold up all the others
    SELECT CONCAT('[', GROUP_CONCAT(workflow_run_id ORDER BY workflow_run_id), ']') INTO v_ids
    FROM workflow_run FORCE INDEX (live)
    WHERE status = 'R' AND submitted_date IS NOT NULL AND heartbeat_date < UTC_TIMESTAMP(6) - INTERVAL 10 SECOND;
    SELECT CONCAT('[', GROUP_CONCAT(workflow_run_id ORDER BY workflow_run_id), ']') INTO v_ids FROM (
        SELECT workflow_run.workflow_run_id
        FROM (SELECT workflow_run_id FROM JSON_TABLE(v_ids, '$[*]' COLUMNS (workflow_run_id BIGINT UNSIGNED PATH '$')) AS ids) AS waiting
            STRAIGHT_JOIN workflow_run FORCE INDEX (PRIMARY) ON workflow_run.workflow_run_id = waiting.workflow_run_id
        -- another distributor may have moved it in the meantime
        WHERE workflow_run.status = 'R' AND workflow_run.heartbeat_date < UTC_TIMESTAMP(6) - INTERVAL 10 SECOND
        FOR UPDATE SKIP LOCKED) AS locked;
    UPDATE JSON_TABLE(v_ids, '$[*]' COLUMNS (workflow_run_id BIGINT UNSIGNED PATH '$')) AS waiting
        STRAIGHT_JOIN workflow_run FORCE INDEX (PRIMARY) ON workflow_run.workflow_run_id = waiting.workflow_run_id
    SET workflow_run.heartbeat_date = UTC_TIMESTAMP(6);
    SET v_num_workflow_runs = COALESCE(JSON_LENGTH(v_ids), 0);
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('num_workflow_runs', v_num_workflow_runs + 0) AS document;
END
