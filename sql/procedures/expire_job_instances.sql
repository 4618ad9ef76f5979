CREATE PROCEDURE expire_job_instances(
    in_max_job_instances INT UNSIGNED,
    in_watched_only BOOLEAN
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Ends the job instances that are lost: INSTANTIATED, submitted or running, and nothing heard of them until report_by_date (the database''s clock). They become ERROR, and their jobs are retried or ERROR_FATAL as the rules say. One that reports in the meantime is left alone.
Access: JSM
Parameters:
  in_max_job_instances: optional, default 1000: at most so many in this call
  in_watched_only: true: only those whose whole lease lies in the time in which a health monitor has watched without a pause, so that an outage, in which no lease can be renewed, is no sign of death; optional, default false
Returns: {"job_instance_ids": [n, ...]}: those that were ended
Example: CALL expire_job_instances(NULL, NULL);
'
BEGIN
    DECLARE v_job_ids LONGTEXT;
    DECLARE v_ids LONGTEXT;
    DECLARE v_watched, v_max_pause INT UNSIGNED;
    DECLARE v_max INT UNSIGNED DEFAULT LEAST(COALESCE(in_max_job_instances, 1000), 10000);
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
    -- a lease that is short beside the pauses that go unnoticed gets two of these on top
    SELECT max_pause_seconds INTO v_max_pause FROM monitor_check WHERE check_name = 'heartbeats';
    SET v_max_pause = COALESCE(v_max_pause, 0), v_watched = watched_seconds();
    SELECT CONCAT('[', GROUP_CONCAT(job_id ORDER BY job_id), ']') INTO v_job_ids FROM (
        SELECT job_id FROM job_instance
        WHERE report_by_date < UTC_TIMESTAMP(6) AND (NOT COALESCE(in_watched_only, FALSE) OR v_watched >= COALESCE(lease_seconds, 300)
            AND report_by_date < UTC_TIMESTAMP(6) - INTERVAL IF(COALESCE(lease_seconds, 300) < 2 * v_max_pause, 2 * v_max_pause, 0) SECOND)
        ORDER BY report_by_date LIMIT 20000) AS late;
    -- a job that somebody else has locked is being reported on: passed over, so it can't hold up the others
    SELECT CONCAT('[', GROUP_CONCAT(job_id ORDER BY job_id), ']') INTO v_job_ids FROM (
        SELECT job.job_id FROM (SELECT job_id FROM JSON_TABLE(v_job_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS ids) AS late
            STRAIGHT_JOIN job FORCE INDEX (PRIMARY) ON job.job_id = late.job_id
        LIMIT v_max FOR UPDATE SKIP LOCKED) AS locked;
    SET v_watched = watched_seconds();
    -- tested again, now that the jobs are locked; by the jobs' instances, since a look at the late ones locks those of others
    SELECT CONCAT('[', GROUP_CONCAT(job_instance_id ORDER BY job_id), ']') INTO v_ids FROM (
        SELECT job_instance.job_instance_id, job_instance.job_id
        FROM (SELECT job_id FROM JSON_TABLE(v_job_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS ids) AS locked
            STRAIGHT_JOIN job_instance FORCE INDEX (attempt_once) ON job_instance.job_id = locked.job_id
        WHERE job_instance.report_by_date < UTC_TIMESTAMP(6) AND job_instance.status IN ('I', 'B', 'R')
            AND (NOT COALESCE(in_watched_only, FALSE) OR v_watched >= COALESCE(job_instance.lease_seconds, 300)) FOR UPDATE) AS lost;
    UPDATE JSON_TABLE(v_ids, '$[*]' COLUMNS (job_instance_id BIGINT UNSIGNED PATH '$')) AS lost
        STRAIGHT_JOIN job_instance FORCE INDEX (PRIMARY) ON job_instance.job_instance_id = lost.job_instance_id
    SET job_instance.error_message = CONCAT('Lost: no report until ', job_instance.report_by_date, ' UTC'), job_instance.status = 'E';
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT CONCAT('{"job_instance_ids": ', COALESCE(v_ids, '[]'), '}') AS document;
END
