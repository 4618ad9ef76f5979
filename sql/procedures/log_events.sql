CREATE PROCEDURE log_events(
    in_events LONGTEXT
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Many reports on job instances in one call. Each event has its own outcome, one that is refused spoils no other. Events of one instance take effect in their order.
Access: JSM
Parameters:
  in_events: array of at most 10000 objects: event (running, done, error, warning, executor_id, executor_name, heartbeat, usage or nodename), job_instance_id, and what the procedure log_<event> takes beside it (heartbeat: lease_seconds). nodename, process_group_id, executor_id, executor_name, and the figures of usage may come with any event
Returns: {"outcomes": [{"code": "OK"}, {"code": name, "message": text}, ...]} in the order of in_events
Errors: MISSING_PARAMETER, INVALID_JSON_PARAMETER, TOO_MANY_ITEMS; for an event: those of log_<event>, INVALID_PARAMETER
Example: CALL log_events(''[{"event": "running", "job_instance_id": 1, "nodename": "node7"}, {"event": "done", "job_instance_id": 1}]'');
'
BEGIN
    DECLARE v_ids LONGTEXT;
    DECLARE v_wave INT UNSIGNED DEFAULT 1;
    DECLARE v_waves INT UNSIGNED;
    DECLARE v_document LONGTEXT;
    DECLARE v_unknown LONGTEXT;
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
    IF in_events IS NULL THEN
        CALL raise_missing_parameter('events');
    END IF;
    CALL begin_work(v_owns);
    SET @@SESSION.group_concat_max_len = 67108864;
    CALL check_json_array('events', in_events);
    DROP TEMPORARY TABLE IF EXISTS tmp_event;
    CREATE TEMPORARY TABLE tmp_event (
        position INT UNSIGNED NOT NULL PRIMARY KEY,
        event VARCHAR(16) NULL,
        to_status CHAR(1) NULL COMMENT 'of running, done and error',
        exceeded VARCHAR(16) NULL,
        job_instance_id BIGINT UNSIGNED NULL,
        job_id BIGINT UNSIGNED NULL,
        wave INT UNSIGNED NOT NULL COMMENT 'the how manieth event of its instance',
        plain BOOLEAN NOT NULL DEFAULT FALSE COMMENT 'sure to be accepted: applied together with others',
        errno INT UNSIGNED NULL,
        message VARCHAR(512) NULL,
        nodename VARCHAR(255) NULL,
        process_group_id BIGINT UNSIGNED NULL,
        executor_id VARCHAR(64) NULL,
        executor_name VARCHAR(128) NULL,
        error_message MEDIUMTEXT NULL,
        usage_str VARCHAR(1000) NULL,
        wallclock VARCHAR(64) NULL,
        maxvmem VARCHAR(64) NULL,
        cpu VARCHAR(64) NULL,
        io VARCHAR(64) NULL,
        lease_seconds INT UNSIGNED NULL,
        KEY (wave)
    ) ENGINE = InnoDB;
    -- numbers that are none become NULL, and are told from those left out by their text; texts are cut to fit
    INSERT INTO tmp_event (position, event, to_status, exceeded, job_instance_id, job_id, wave, message, nodename, process_group_id,
        executor_id, executor_name, error_message, usage_str, wallclock, maxvmem, cpu, io, lease_seconds)
    SELECT position, LEFT(event, 16),
        -- as bytes: on MariaDB, JSON_TABLE gives texts in which RUNNING is running
        CASE CAST(event AS BINARY) WHEN 'running' THEN 'R' WHEN 'done' THEN 'D'
            WHEN 'error' THEN COALESCE(LEFT(sent.job_instance_status, 1), 'E') END,
        LEFT(sent.exceeded, 16),
        job_instance.job_instance_id, job_instance.job_id,
        ROW_NUMBER() OVER (PARTITION BY job_instance.job_instance_id ORDER BY sent.position),
        -- why it is refused; NULL: it is not
        CASE WHEN event IS NULL THEN '32001 event is needed'
            WHEN sent.job_instance_id IS NULL THEN '32001 job_instance_id is needed'
            WHEN event = 'error' AND sent.error_message IS NULL THEN '32001 error_message is needed'
            WHEN event = 'warning' AND sent.error_message IS NULL THEN '32001 error_message is needed'
            WHEN event = 'nodename' AND sent.nodename IS NULL THEN '32001 nodename is needed'
            WHEN event = 'executor_id' AND sent.executor_id IS NULL THEN '32001 executor_id is needed'
            WHEN event = 'executor_name' AND sent.executor_name IS NULL THEN '32001 executor_name is needed'
            WHEN CAST(event AS BINARY) NOT IN ('running', 'done', 'error', 'warning', 'executor_id', 'executor_name', 'heartbeat', 'usage', 'nodename')
                THEN '32002 there is no such event'
            WHEN event <> 'error' AND COALESCE(sent.job_instance_status, sent.exceeded) IS NOT NULL
                THEN '32002 job_instance_status and exceeded go with the event error only'
            WHEN CAST(sent.job_instance_status AS BINARY) NOT IN ('E', 'W', 'Z', 'U') THEN '32002 job_instance_status must be E, W, Z or U'
            WHEN sent.exceeded IS NOT NULL
                    AND NOT (COALESCE(sent.job_instance_status, 'E') = 'Z' AND CAST(sent.exceeded AS BINARY) IN ('mem_free', 'max_runtime'))
                THEN '32002 exceeded must be mem_free or max_runtime, and goes with job_instance_status Z only'
            WHEN sent.job_instance_id NOT REGEXP '^[0-9]{1,18}\\z' THEN '32002 job_instance_id must be a whole number'
            WHEN sent.process_group_id NOT REGEXP '^[0-9]{1,18}\\z' THEN '32002 process_group_id must be a whole number'
            WHEN sent.lease_seconds NOT REGEXP '^[0-9]{1,9}\\z' THEN '32002 lease_seconds must be a whole number'
            WHEN CHAR_LENGTH(sent.executor_id) > 64 THEN '32002 executor_id has more than 64 characters'
            WHEN CHAR_LENGTH(sent.executor_name) > 128 THEN '32002 executor_name has more than 128 characters'
            WHEN job_instance.job_instance_id IS NULL THEN CONCAT('32022 there is no job instance ', sent.job_instance_id) END,
        IF(CHAR_LENGTH(sent.nodename) > 255, cut_text(sent.nodename, 255), sent.nodename),
        IF(sent.process_group_id REGEXP '^[0-9]{1,18}\\z', sent.process_group_id, NULL), LEFT(sent.executor_id, 64), LEFT(sent.executor_name, 128),
        IF(CHAR_LENGTH(sent.error_message) > 65535, cut_text(sent.error_message, 65535), sent.error_message),
        IF(CHAR_LENGTH(sent.usage_str) > 1000, cut_text(sent.usage_str, 1000), sent.usage_str),
        IF(CHAR_LENGTH(sent.wallclock) > 64, cut_text(sent.wallclock, 64), sent.wallclock),
        IF(CHAR_LENGTH(sent.maxvmem) > 64, cut_text(sent.maxvmem, 64), sent.maxvmem),
        IF(CHAR_LENGTH(sent.cpu) > 64, cut_text(sent.cpu, 64), sent.cpu),
        IF(CHAR_LENGTH(sent.io) > 64, cut_text(sent.io, 64), sent.io),
        IF(sent.lease_seconds REGEXP '^[0-9]{1,9}\\z', sent.lease_seconds, NULL)
    FROM JSON_TABLE(in_events, '$[*]' COLUMNS (
        position FOR ORDINALITY,
        event MEDIUMTEXT PATH '$.event',
        job_instance_id MEDIUMTEXT PATH '$.job_instance_id',
        nodename MEDIUMTEXT PATH '$.nodename',
        process_group_id MEDIUMTEXT PATH '$.process_group_id',
        executor_id MEDIUMTEXT PATH '$.executor_id',
        executor_name MEDIUMTEXT PATH '$.executor_name',
        job_instance_status MEDIUMTEXT PATH '$.job_instance_status',
        exceeded MEDIUMTEXT PATH '$.exceeded',
        error_message MEDIUMTEXT PATH '$.error_message',
        usage_str MEDIUMTEXT PATH '$.usage_str',
        wallclock MEDIUMTEXT PATH '$.wallclock',
        maxvmem MEDIUMTEXT PATH '$.maxvmem',
        cpu MEDIUMTEXT PATH '$.cpu',
        io MEDIUMTEXT PATH '$.io',
        lease_seconds MEDIUMTEXT PATH '$.lease_seconds')) AS sent
    LEFT JOIN job_instance ON job_instance.job_instance_id = IF(sent.job_instance_id REGEXP '^[0-9]{1,18}\\z', CAST(sent.job_instance_id AS UNSIGNED), NULL);
    CALL find_unknown_keys(in_events, '["event", "job_instance_id", "nodename", "process_group_id", "executor_id", "executor_name", "job_instance_status", "exceeded", "error_message", "usage_str", "wallclock", "maxvmem", "cpu", "io", "lease_seconds"]', v_unknown);
    UPDATE JSON_TABLE(v_unknown, '$[*]' COLUMNS (position INT UNSIGNED PATH '$.position', unknown_key VARCHAR(60) PATH '$.key')) AS odd
        STRAIGHT_JOIN tmp_event FORCE INDEX (PRIMARY) ON tmp_event.position = odd.position
    SET tmp_event.message = CONCAT('32002 unknown key: ', odd.unknown_key)
    WHERE tmp_event.message IS NULL;
    UPDATE tmp_event SET errno = LEFT(message, 5), message = SUBSTRING(message, 7) WHERE message IS NOT NULL;
    -- all jobs first, ids ascending: those of the events, and those that a done event may queue
    SELECT MAX(wave) INTO v_waves FROM tmp_event WHERE errno IS NULL;
    SELECT CONCAT('[', GROUP_CONCAT(DISTINCT COALESCE(job_edge.downstream_job_id, tmp_event.job_id)
        ORDER BY COALESCE(job_edge.downstream_job_id, tmp_event.job_id)), ']') INTO v_ids
    FROM (SELECT 0 AS downstream UNION ALL SELECT 1) AS side
        STRAIGHT_JOIN tmp_event ON tmp_event.errno IS NULL
        LEFT JOIN job_edge ON side.downstream = 1 AND tmp_event.to_status = 'D'
            AND job_edge.upstream_job_id = tmp_event.job_id;
    CALL lock_jobs(v_ids);
    WHILE v_wave <= v_waves DO
        CALL apply_events(v_wave);
        SET v_wave = v_wave + 1;
    END WHILE;
    SELECT CONCAT('{"outcomes": [', COALESCE(GROUP_CONCAT(
        IF(tmp_event.errno IS NULL, '{"code": "OK"}', JSON_OBJECT(
            'code', COALESCE(api_error.name, 'DATABASE_ERROR'), 'message', COALESCE(tmp_event.message, api_error.message, '')))
        ORDER BY position), ''), ']}') INTO v_document
    FROM tmp_event LEFT JOIN api_error ON api_error.errno = tmp_event.errno;
    DROP TEMPORARY TABLE tmp_event;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT v_document AS document;
END
