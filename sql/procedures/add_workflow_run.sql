CREATE PROCEDURE add_workflow_run(
    in_workflow_id BIGINT UNSIGNED,
    in_user VARCHAR(150),
    in_hostname MEDIUMTEXT,
    in_pid BIGINT UNSIGNED,
    in_stderr VARCHAR(1000),
    in_stdout VARCHAR(1000),
    in_working_dir VARCHAR(1000),
    in_project VARCHAR(150),
    in_slack_channel VARCHAR(150),
    in_executor_class VARCHAR(150),
    in_request_key VARCHAR(64),
    in_stale_after_seconds INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Starts a run of a workflow. A run of it that is still RUNNING is superseded: it becomes STOPPED. The workflow becomes RUNNING. A client that hands its jobs to distributors goes on with submit_workflow_run.
Access: JSM
Parameters:
  in_workflow_id: the workflow
  in_user: who runs it
  in_hostname: where; cut to 255 characters
  in_pid: the client''s process id
  in_stderr: directory; optional
  in_stdout: directory; optional
  in_working_dir: optional
  in_project: optional
  in_slack_channel: where to tell of it; optional
  in_executor_class: optional
  in_request_key: optional; the call may be repeated under it without a second run
  in_stale_after_seconds: optional: supersede a run only if its heartbeat is at least so old, else refuse. Without it a run that lives is superseded always
Returns: {"workflow_run_id": n}
Errors: MISSING_PARAMETER, UNKNOWN_WORKFLOW, WORKFLOW_RUN_ALIVE, ILLEGAL_TRANSITION (the workflow is DONE), REQUEST_KEY_CONFLICT, DAG_PRUNED
Example: CALL add_workflow_run(1, ''ann'', ''login1'', 4242, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
'
BEGIN
    DECLARE v_document LONGTEXT;
    DECLARE v_text VARCHAR(127);
    DECLARE v_live_id, v_live_pid BIGINT UNSIGNED;
    DECLARE v_live_user, v_live_hostname VARCHAR(255);
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
    IF in_workflow_id IS NULL THEN
        CALL raise_missing_parameter('workflow_id');
    END IF;
    IF in_user IS NULL THEN
        CALL raise_missing_parameter('user');
    END IF;
    IF in_hostname IS NULL THEN
        CALL raise_missing_parameter('hostname');
    END IF;
    IF in_pid IS NULL THEN
        CALL raise_missing_parameter('pid');
    END IF;
    CALL begin_work(v_owns);
    CALL recall_request(in_request_key, 'add_workflow_run', v_document);
    IF v_document IS NULL THEN
        -- two runs that start at once take turns
        CALL lock_workflow(in_workflow_id);
        IF in_stale_after_seconds IS NOT NULL THEN
            SELECT workflow_run_id, user, hostname, pid INTO v_live_id, v_live_user, v_live_hostname, v_live_pid
            FROM workflow_run FORCE INDEX (workflow_id)
            WHERE workflow_id = in_workflow_id AND status = 'R'
                AND heartbeat_date > UTC_TIMESTAMP(6) - INTERVAL in_stale_after_seconds SECOND
            LIMIT 1 FOR UPDATE;
            IF v_live_id IS NOT NULL THEN
                SET v_text = CONCAT('WORKFLOW_RUN_ALIVE: run ', v_live_id, ' of ', LEFT(v_live_user, 12), ' lives on ', LEFT(v_live_hostname, 36),
                    ', process ', LEFT(v_live_pid, 10));
                SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32042, MESSAGE_TEXT = v_text;
            END IF;
        END IF;
        -- by this index: by the one of all live runs, runs that start at once would wait for each other's
        UPDATE workflow_run FORCE INDEX (workflow_id) SET status = 'S' WHERE workflow_id = in_workflow_id AND status = 'R';
        INSERT INTO workflow_run (workflow_id, user, hostname, pid, stderr, stdout, working_dir, project, slack_channel, executor_class)
        VALUES (in_workflow_id, in_user, cut_text(in_hostname, 255), in_pid, in_stderr, in_stdout, in_working_dir, in_project,
                in_slack_channel, in_executor_class);
        SET v_document = JSON_OBJECT('workflow_run_id', LAST_INSERT_ID());
        UPDATE api_request SET answer = v_document WHERE request_key = in_request_key;
    END IF;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT v_document AS document;
END
