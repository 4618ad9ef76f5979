-- Description: A workflow has one live run at a time, and none when its dag is being pruned.
CREATE TRIGGER workflow_run_before_insert BEFORE INSERT ON workflow_run FOR EACH ROW
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_workflow_id BIGINT UNSIGNED;
    DECLARE v_live INT;
    IF NEW.status <> 'R' THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32053,
            MESSAGE_TEXT = 'WRONG_FIRST_STATUS: a workflow run starts in R (RUNNING)';
    END IF;
    -- two runs that start at once take turns here; the foreign key's shared lock would come too late
    SELECT workflow_id INTO v_workflow_id FROM workflow WHERE workflow_id = NEW.workflow_id FOR UPDATE;
    IF v_workflow_id IS NULL THEN
        SET v_text = CONCAT('UNKNOWN_WORKFLOW: there is no workflow ', NEW.workflow_id);
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32023, MESSAGE_TEXT = v_text;
    END IF;
    CALL refuse_pruned_dag((SELECT dag_id FROM workflow WHERE workflow_id = NEW.workflow_id));
    -- locking: this session's snapshot may be older than another's run; by this index: no run of another workflow is locked
    SELECT COUNT(*) INTO v_live FROM workflow_run FORCE INDEX (workflow_id) WHERE workflow_id = NEW.workflow_id AND status = 'R' LOCK IN SHARE MODE;
    IF v_live > 0 THEN
        SET v_text = CONCAT('WORKFLOW_RUN_ALIVE: workflow ', NEW.workflow_id, ' has a run in R (RUNNING)');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32042, MESSAGE_TEXT = v_text;
    END IF;
    -- the heartbeat is fresh when the run starts
    SET NEW.created_date = UTC_TIMESTAMP(6), NEW.status_date = UTC_TIMESTAMP(6), NEW.heartbeat_date = UTC_TIMESTAMP(6);
END
