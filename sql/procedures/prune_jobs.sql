CREATE PROCEDURE prune_jobs(
    in_job_ids LONGTEXT,
    in_older_than_seconds BIGINT UNSIGNED,
    in_statuses VARCHAR(8),
    in_max_rows INT UNSIGNED,
    in_archive BOOLEAN
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Deletes jobs without a dag, each whole, in one transaction: those of the list that may still be pruned when they are locked, and for which no job waits. What one call leaves because it has too many edges or attributes the next one finds.
Access: internal
Parameters:
  in_job_ids: JSON array of at most 10000 job ids
  in_older_than_seconds: finished at least so long ago
  in_statuses: letters of workflow_status: D takes DONE jobs, E takes ERROR_FATAL ones; optional, default D
  in_max_rows: optional, default 1000: about so many rows in this call
  in_archive: optional, default false: copy the rows to the archive_... tables in the same transaction
Returns: {"job_ids": [n, ...], "num_rows": n}: the jobs that were deleted
Errors: MISSING_PARAMETER, INVALID_JSON_PARAMETER, TOO_MANY_ITEMS, INVALID_PARAMETER, UNKNOWN_STATUS
Example: CALL prune_jobs(''[1, 2]'', 90 * 86400, ''D'', NULL, FALSE);
'
BEGIN
    DECLARE v_max INT UNSIGNED DEFAULT GREATEST(LEAST(COALESCE(in_max_rows, 1000), 100000), 20);
    DECLARE v_statuses VARCHAR(8) DEFAULT COALESCE(in_statuses, 'D');
    DECLARE v_before DATETIME(6);
    DECLARE v_ids LONGTEXT;
    DECLARE v_num_rows BIGINT DEFAULT 0;
    DECLARE v_gone BOOLEAN DEFAULT FALSE;
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
    CALL check_prune_parameters(in_older_than_seconds, v_statuses);
    CALL check_json_array('job_ids', in_job_ids);
    CALL begin_work(v_owns);
    SET @@SESSION.group_concat_max_len = 67108864;
    SET v_before = UTC_TIMESTAMP(6) - INTERVAL in_older_than_seconds SECOND;
    SELECT CONCAT('[', GROUP_CONCAT(job_id ORDER BY job_id), ']') INTO v_ids
    FROM JSON_TABLE(in_job_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS asked;
    CALL lock_jobs(v_ids);
    -- tested now that they are locked (a job with downstream jobs is left for a later call, when they are gone)
    SELECT CONCAT('[', GROUP_CONCAT(job_id ORDER BY job_id), ']') INTO v_ids FROM (
        SELECT job.job_id, SUM(3 + 10 * (job.num_attempts + job.attempts_before_reset)) OVER (ORDER BY job.job_id DESC) AS num_rows,
            ROW_NUMBER() OVER (ORDER BY job.job_id DESC) AS place
        FROM (SELECT job_id FROM JSON_TABLE(v_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS ids) AS asked
            STRAIGHT_JOIN job FORCE INDEX (PRIMARY) ON job.job_id = asked.job_id
        WHERE job.dag_id IS NULL AND job.status_date < v_before
            AND ((job.status = 'D' AND LOCATE('D', v_statuses)) OR (job.status = 'F' AND LOCATE('E', v_statuses)))
            AND NOT EXISTS (SELECT 1 FROM job_edge FORCE INDEX (PRIMARY) WHERE job_edge.upstream_job_id = job.job_id)) AS weighed
    WHERE num_rows <= v_max OR place = 1;
    IF v_ids IS NOT NULL THEN
        CALL prune_job_rows(v_ids, v_max, COALESCE(in_archive, FALSE), v_num_rows, v_gone);
    END IF;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT CONCAT('{"job_ids": ', IF(v_gone, v_ids, '[]'), ', "num_rows": ', v_num_rows, '}') AS document;
END
