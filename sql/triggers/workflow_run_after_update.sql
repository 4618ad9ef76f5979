-- Description: The end of a run is told, in its own transaction, whoever ended it: ERROR to the run's Slack channel or the
--   default one, DONE to the run's own only. Nobody is told of a run that somebody stopped.
CREATE TRIGGER workflow_run_after_update AFTER UPDATE ON workflow_run FOR EACH ROW
BEGIN
    DECLARE v_channel VARCHAR(150);
    DECLARE v_run, v_after, v_name VARCHAR(1000);
    DECLARE v_seconds, v_num_fatal BIGINT;
    IF NEW.status <> OLD.status AND NEW.status IN ('E', 'D') THEN
        SET v_channel = NULLIF(TRIM(NEW.slack_channel), '');
        IF NEW.status = 'E' OR v_channel IS NOT NULL THEN
            SELECT name INTO v_name FROM workflow WHERE workflow_id = NEW.workflow_id;
            SET v_seconds = TIMESTAMPDIFF(SECOND, NEW.created_date, NEW.status_date),
                v_after = CONCAT(' after ', CASE WHEN v_seconds >= 3600 THEN CONCAT(v_seconds DIV 3600, ' h ', v_seconds MOD 3600 DIV 60, ' min')
                    WHEN v_seconds >= 60 THEN CONCAT(v_seconds DIV 60, ' min ', v_seconds MOD 60, ' s')
                    ELSE CONCAT(v_seconds, ' s') END),
                v_run = CONCAT('Workflow run ', NEW.workflow_run_id, ' of workflow ', NEW.workflow_id, ' (', v_name, ', ', NEW.user);
            -- the key is there already if a run ends twice in one way, which the transitions rule out: told once in any case,
            -- and never in the way of the end itself
            IF NEW.lost_date IS NOT NULL AND NEW.status = 'E' THEN
                INSERT INTO notification (kind, channel, dedup_key, message)
                VALUES ('RUN_LOST', v_channel, CONCAT('RUN_LOST ', NEW.workflow_run_id), CONCAT(v_run, ', process ', NEW.pid, ' on ',
                    NEW.hostname, ') is lost and in ERROR: nothing was heard of it since ', DATE_FORMAT(NEW.heartbeat_date, '%Y-%m-%d %H:%i:%s'),
                    ' UTC. To go on: run its program again, or jobmon workflow resume ', NEW.workflow_id))
                ON DUPLICATE KEY UPDATE kind = kind;
            ELSEIF NEW.status = 'E' THEN
                SELECT COUNT(*) INTO v_num_fatal FROM workflow JOIN job FORCE INDEX (status) ON job.status = 'F' AND job.dag_id = workflow.dag_id
                WHERE workflow.workflow_id = NEW.workflow_id;
                INSERT INTO notification (kind, channel, dedup_key, message)
                VALUES ('RUN_ERROR', v_channel, CONCAT('RUN_ERROR ', NEW.workflow_run_id), CONCAT(v_run, ') has ended in ERROR', v_after, ': ',
                    v_num_fatal, IF(v_num_fatal = 1, ' job is', ' jobs are'), ' ERROR_FATAL. Why: jobmon workflow errors ', NEW.workflow_id))
                ON DUPLICATE KEY UPDATE kind = kind;
            ELSE
                INSERT INTO notification (kind, channel, dedup_key, message)
                VALUES ('RUN_DONE', v_channel, CONCAT('RUN_DONE ', NEW.workflow_run_id),
                    CONCAT(v_run, ')', IF(OLD.status = 'E', ', which was in ERROR,', ''), ' is DONE', v_after))
                ON DUPLICATE KEY UPDATE kind = kind;
            END IF;
        END IF;
    END IF;
END
