CREATE PROCEDURE find_prunable_jobs(
    in_older_than_seconds BIGINT UNSIGNED,
    in_statuses VARCHAR(8),
    in_before_job_id BIGINT UNSIGNED,
    in_max_jobs INT UNSIGNED
)
    SQL SECURITY DEFINER
    READS SQL DATA
    COMMENT '
Description: The jobs without a dag that may be pruned: DONE (D) or ERROR_FATAL (E) for so long, and no job waits for them. The newest first, as downstream jobs go before their upstream jobs.
Access: internal
Parameters:
  in_older_than_seconds: finished at least so long ago
  in_statuses: letters of workflow_status: D takes DONE jobs, E takes ERROR_FATAL ones; optional, default D
  in_before_job_id: optional: with smaller ids only
  in_max_jobs: optional, default 100
Returns: {"job_ids": [n, ...]}, descending
Errors: MISSING_PARAMETER, INVALID_PARAMETER, UNKNOWN_STATUS
Example: CALL find_prunable_jobs(90 * 86400, ''DE'', NULL, 100);
'
BEGIN
    DECLARE v_max INT UNSIGNED DEFAULT LEAST(COALESCE(in_max_jobs, 100), 10000);
    DECLARE v_next BIGINT UNSIGNED DEFAULT COALESCE(in_before_job_id, 18446744073709551615);
    DECLARE v_statuses VARCHAR(8) DEFAULT COALESCE(in_statuses, 'D');
    DECLARE v_before DATETIME(6);
    DECLARE v_document LONGTEXT;
    CALL check_prune_parameters(in_older_than_seconds, v_statuses);
    SET v_before = UTC_TIMESTAMP(6) - INTERVAL in_older_than_seconds SECOND;
    SET @@SESSION.group_concat_max_len = 67108864;
    SELECT CONCAT('{"job_ids": [', COALESCE(GROUP_CONCAT(job_id ORDER BY job_id DESC), ''), ']}') INTO v_document FROM (
        SELECT job_id FROM (
            (SELECT job_id FROM job FORCE INDEX (status)
            WHERE status = 'D' AND dag_id IS NULL AND job_id < v_next AND LOCATE('D', v_statuses) AND status_date < v_before
            ORDER BY job_id DESC LIMIT v_max)
            UNION ALL
            (SELECT job_id FROM job FORCE INDEX (status)
            WHERE status = 'F' AND dag_id IS NULL AND job_id < v_next AND LOCATE('E', v_statuses) AND status_date < v_before
            ORDER BY job_id DESC LIMIT v_max)
        ) AS of_each_status
        ORDER BY job_id DESC LIMIT v_max) AS prunable;
    SELECT v_document AS document;
END
