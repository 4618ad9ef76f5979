CREATE PROCEDURE end_lost_workflow_runs(
    in_loss_threshold_seconds INT UNSIGNED,
    in_max_workflow_runs INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Ends the live runs that are lost: a client is to be heard of them (see silent_workflow_runs) and was not for the threshold, during all of which a health monitor has been watching. They become ERROR, and so do their workflows; their Slack channels are told. One that is heard of in the meantime is left alone. Of a run that was handed over to distributors, of which none was heard of for the threshold, its channel is told once, and it goes on waiting.
Access: JSM
Parameters:
  in_loss_threshold_seconds: optional, default 300
  in_max_workflow_runs: optional, default 1000: at most so many in this call
Returns: {"workflow_runs": [{"workflow_run_id", "workflow_id"}, ...]}: those that were ended
Example: CALL end_lost_workflow_runs(300, NULL);
'
BEGIN
    DECLARE v_ids LONGTEXT;
    DECLARE v_document LONGTEXT;
    DECLARE v_position INT UNSIGNED DEFAULT 0;
    DECLARE v_workflow_run_id, v_workflow_id BIGINT UNSIGNED;
    DECLARE v_threshold INT UNSIGNED DEFAULT COALESCE(in_loss_threshold_seconds, 300);
    DECLARE v_max INT UNSIGNED DEFAULT LEAST(COALESCE(in_max_workflow_runs, 1000), 10000);
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
    INTO v_ids FROM silent_workflow_runs
    WHERE expects_heartbeats AND silent_seconds >= v_threshold AND watched_seconds() >= v_threshold;
    -- a run that somebody else has locked is being reported on: passed over, so it can't hold up the others
    SELECT CONCAT('[', GROUP_CONCAT(JSON_OBJECT('workflow_id', workflow_id, 'workflow_run_id', workflow_run_id) ORDER BY workflow_id), ']') INTO v_ids FROM (
        SELECT workflow.workflow_id, workflow_run.workflow_run_id
        FROM (SELECT workflow_id, workflow_run_id FROM JSON_TABLE(v_ids, '$[*]' COLUMNS (
                workflow_id BIGINT UNSIGNED PATH '$.workflow_id', workflow_run_id BIGINT UNSIGNED PATH '$.workflow_run_id')) AS ids) AS silent
            STRAIGHT_JOIN workflow FORCE INDEX (PRIMARY) ON workflow.workflow_id = silent.workflow_id
            STRAIGHT_JOIN workflow_run FORCE INDEX (PRIMARY) ON workflow_run.workflow_run_id = silent.workflow_run_id
        WHERE workflow_run.status = 'R' LIMIT v_max FOR UPDATE SKIP LOCKED) AS locked;
    WHILE v_position < COALESCE(JSON_LENGTH(v_ids), 0) DO
        SET v_workflow_run_id = JSON_EXTRACT(v_ids, CONCAT('$[', v_position, '].workflow_run_id')),
            v_workflow_id = JSON_EXTRACT(v_ids, CONCAT('$[', v_position, '].workflow_id'));
        -- All of it is tested again here, by the present clock: a heartbeat may have come before the lock, and the whole machine
        -- may have stood still since. The trigger writes the notification.
        UPDATE workflow_run SET status = 'E', lost_date = UTC_TIMESTAMP(6)
        WHERE workflow_run_id = v_workflow_run_id AND status = 'R'
            AND heartbeat_date <= UTC_TIMESTAMP(6) - INTERVAL v_threshold SECOND AND watched_seconds() >= v_threshold
            AND (submitted_date IS NULL OR executor_class IS NOT NULL);
        IF ROW_COUNT() > 0 THEN
            UPDATE workflow SET status = 'E' WHERE workflow_id = v_workflow_id AND status IN ('C', 'R');
        ELSE
            SET v_ids = JSON_SET(v_ids, CONCAT('$[', v_position, '].workflow_run_id'), NULL);
        END IF;
        SET v_position = v_position + 1;
    END WHILE;
    SELECT CONCAT('{"workflow_runs": [', COALESCE(GROUP_CONCAT(JSON_OBJECT('workflow_id', workflow_id, 'workflow_run_id', workflow_run_id)
        ORDER BY workflow_run_id), ''), ']}') INTO v_document
    FROM JSON_TABLE(v_ids, '$[*]' COLUMNS (
        workflow_id BIGINT UNSIGNED PATH '$.workflow_id', workflow_run_id BIGINT UNSIGNED PATH '$.workflow_run_id')) AS lost
    WHERE workflow_run_id IS NOT NULL;
    -- nothing is wrong with these; but somebody may think that they run
    INSERT INTO notification (kind, channel, dedup_key, message)
    SELECT 'RUN_WAITING', NULLIF(TRIM(silent.slack_channel), ''), CONCAT('RUN_WAITING ', silent.workflow_run_id),
        CONCAT('Workflow run ', silent.workflow_run_id, ' of workflow ', silent.workflow_id, ' (', silent.name, ', ', silent.user,
            ') waits: no distributor was heard of for ', silent.silent_seconds DIV 60, ' min. Start one: jobmon start distributor')
    FROM silent_workflow_runs AS silent
    WHERE NOT silent.expects_heartbeats AND silent.silent_seconds >= v_threshold AND watched_seconds() >= v_threshold
        -- not EXISTS: as a semi-join it may read all queued jobs
        AND (SELECT 1 FROM job FORCE INDEX (status) WHERE job.status = 'Q' AND job.dag_id = silent.dag_id LIMIT 1) IS NOT NULL
        -- what was told already is not even tried: that would use up a number each time
        AND (SELECT 1 FROM notification AS told WHERE told.dedup_key = CONCAT('RUN_WAITING ', silent.workflow_run_id)) IS NULL
    ON DUPLICATE KEY UPDATE kind = notification.kind;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT v_document AS document;
END
