CREATE PROCEDURE report_failing_nodes(
    in_window_seconds INT UNSIGNED,
    in_min_job_instances INT UNSIGNED,
    in_failure_rate DOUBLE
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Looks for nodes on which jobs fail that succeed elsewhere. Counted are the job instances that ended in the window, of workflow runs of which more have succeeded than failed on all other nodes together. A node is failing when enough count and the share that failed has reached the rate; that is told once. Its episode ends when the share is below half the rate, or nothing of it counts any more.
Access: JSM
Parameters:
  in_window_seconds: optional, default 3600
  in_min_job_instances: optional, default 10
  in_failure_rate: from 0 to 1; optional, default 0.5
Returns: {"nodes": [{"nodename", "num_job_instances", "num_failed", "failing_since"}, ...]}: all that are failing now
Errors: INVALID_PARAMETER
Example: CALL report_failing_nodes(3600, 10, 0.5e0);
'
BEGIN
    DECLARE v_nodes LONGTEXT;
    DECLARE v_document LONGTEXT;
    DECLARE v_window INT UNSIGNED DEFAULT COALESCE(in_window_seconds, 3600);
    DECLARE v_min INT UNSIGNED DEFAULT GREATEST(COALESCE(in_min_job_instances, 10), 1);
    DECLARE v_rate DOUBLE DEFAULT COALESCE(in_failure_rate, 0.5);
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
    IF NOT v_rate BETWEEN 0.01 AND 1 THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002, MESSAGE_TEXT = 'INVALID_PARAMETER: failure_rate must be from 0.01 to 1';
    END IF;
    CALL begin_work(v_owns);
    SET @@SESSION.group_concat_max_len = 67108864;
    -- monitors take turns: one with older figures would end what another has begun
    INSERT INTO monitor_check (check_name, check_date) VALUES ('nodes', UTC_TIMESTAMP(6))
    ON DUPLICATE KEY UPDATE check_date = UTC_TIMESTAMP(6);
    SELECT CONCAT('[', GROUP_CONCAT(JSON_OBJECT('nodename', nodename, 'num_job_instances', num_job_instances, 'num_failed', num_failed)), ']')
    INTO v_nodes FROM (
        SELECT nodename, SUM(num_ended) AS num_job_instances, SUM(num_failed) AS num_failed
        FROM (
            SELECT nodename, num_ended, num_failed,
                SUM(num_ended) OVER (PARTITION BY workflow_run_id) - num_ended AS ended_elsewhere,
                SUM(num_failed) OVER (PARTITION BY workflow_run_id) - num_failed AS failed_elsewhere
            FROM (
                SELECT workflow_run_id, nodename, COUNT(*) AS num_ended, SUM(status <> 'D') AS num_failed
                FROM job_instance FORCE INDEX (ended)
                WHERE ended_date > UTC_TIMESTAMP(6) - INTERVAL v_window SECOND AND nodename IS NOT NULL AND workflow_run_id IS NOT NULL
                GROUP BY workflow_run_id, nodename) AS here) AS compared
        WHERE 2 * failed_elsewhere < ended_elsewhere
        GROUP BY nodename) AS judged;
    DELETE FROM failing_node WHERE nodename NOT IN (
        SELECT nodename FROM JSON_TABLE(v_nodes, '$[*]' COLUMNS (nodename VARCHAR(255) PATH '$.nodename',
            num_job_instances INT UNSIGNED PATH '$.num_job_instances', num_failed INT UNSIGNED PATH '$.num_failed')) AS judged
        WHERE 2 * num_failed >= num_job_instances * v_rate);
    INSERT INTO failing_node (nodename, failing_since, check_date, num_job_instances, num_failed)
    SELECT nodename, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), num_job_instances, num_failed
    FROM JSON_TABLE(v_nodes, '$[*]' COLUMNS (nodename VARCHAR(255) PATH '$.nodename',
        num_job_instances INT UNSIGNED PATH '$.num_job_instances', num_failed INT UNSIGNED PATH '$.num_failed')) AS judged
    WHERE num_job_instances >= v_min AND num_failed >= num_job_instances * v_rate
        OR nodename IN (SELECT nodename FROM failing_node AS known)
    ON DUPLICATE KEY UPDATE check_date = VALUES(check_date), num_job_instances = VALUES(num_job_instances), num_failed = VALUES(num_failed);
    INSERT INTO notification (kind, dedup_key, message)
    SELECT 'NODE_FAILING', CONCAT('NODE_FAILING ', nodename, ' ', failing_since),
        CONCAT('Node ', nodename, ' is failing: ', num_failed, ' of the ', num_job_instances, ' job instances that ended there in the last ',
            v_window DIV 60, ' min have failed, of workflow runs that succeed on other nodes. Which: jobmon status')
    FROM failing_node
    WHERE (SELECT 1 FROM notification AS told WHERE told.dedup_key = CONCAT('NODE_FAILING ', failing_node.nodename, ' ', failing_node.failing_since)) IS NULL
    ON DUPLICATE KEY UPDATE kind = notification.kind;
    SELECT CONCAT('{"nodes": [', COALESCE(GROUP_CONCAT(JSON_OBJECT('failing_since', DATE_FORMAT(failing_since, '%Y-%m-%dT%H:%i:%s'),
        'nodename', nodename, 'num_failed', num_failed, 'num_job_instances', num_job_instances) ORDER BY nodename), ''), ']}') INTO v_document
    FROM failing_node;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT v_document AS document;
END
