CREATE PROCEDURE prune_dag(
    in_dag_id BIGINT UNSIGNED,
    in_max_rows INT UNSIGNED,
    in_archive BOOLEAN
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Deletes a part of a dag that start_prune has marked, in one transaction: jobs with all that belongs to them, from the newest (downstream jobs before their upstream jobs); when no job is left, runs, then workflows and the dag. Call again until it has ended. Where the last call came to an end is seen from what is left, so anybody may go on after a crash.
Access: internal
Parameters:
  in_dag_id: the dag
  in_max_rows: optional, default 1000: about so many rows in this call
  in_archive: optional, default false: copy the rows to the archive_... tables in the same transaction
Returns: {"num_rows": n, "num_jobs": n, "ended": true or false, "live_job_id": a job that has come to life in spite of the mark, and keeps the dag from being deleted, or null}
Errors: MISSING_PARAMETER, INVALID_PARAMETER, UNKNOWN_DAG
Example: CALL prune_dag(1, NULL, FALSE);
'
BEGIN
    DECLARE v_max INT UNSIGNED DEFAULT GREATEST(LEAST(COALESCE(in_max_rows, 1000), 100000), 20);
    DECLARE v_max_jobs INT UNSIGNED DEFAULT v_max DIV 3 + 1;
    DECLARE v_archive BOOLEAN DEFAULT COALESCE(in_archive, FALSE);
    DECLARE v_marked, v_next_job_id, v_live_job_id, v_job_id BIGINT UNSIGNED;
    DECLARE v_ids LONGTEXT;
    DECLARE v_num_rows BIGINT DEFAULT 0;
    DECLARE v_num_jobs BIGINT DEFAULT 0;
    DECLARE v_count BIGINT;
    DECLARE v_gone BOOLEAN;
    DECLARE v_ended BOOLEAN DEFAULT FALSE;
    DECLARE v_id VARCHAR(64) DEFAULT 'id BIGINT UNSIGNED PATH ''$''';
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
    IF in_dag_id IS NULL THEN
        CALL raise_missing_parameter('dag_id');
    END IF;
    CALL begin_work(v_owns);
    SET @@SESSION.group_concat_max_len = 67108864;
    CALL lock_dag(in_dag_id);
    SELECT COUNT(*) INTO v_count FROM workflow FORCE INDEX (workflow_args_once) WHERE dag_id = in_dag_id FOR UPDATE;
    SELECT dag_id, COALESCE(next_job_id, 18446744073709551615) INTO v_marked, v_next_job_id FROM pruned_dag WHERE dag_id = in_dag_id;
    IF v_marked IS NULL THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002, MESSAGE_TEXT = 'INVALID_PARAMETER: this dag is not marked: call start_prune first';
    END IF;
    -- The mark keeps all from coming to life but a raw INSERT of an attempt at a job that was queued.
    SELECT job_id INTO v_live_job_id FROM job FORCE INDEX (status) WHERE status IN ('I', 'R', 'E') AND dag_id = in_dag_id LIMIT 1;
    IF v_live_job_id IS NULL THEN
        -- From the end of each status's part of the index, and not what was deleted just now, which is still in it for others'
        -- snapshots. So many jobs as have about in_max_rows rows: of each its own, two of history, and up to ten an attempt.
        SELECT CONCAT('[', GROUP_CONCAT(job_id ORDER BY job_id), ']'), MIN(job_id) INTO v_ids, v_job_id FROM (
            SELECT newest.job_id, SUM(3 + 10 * (job.num_attempts + job.attempts_before_reset)) OVER (ORDER BY newest.job_id DESC) AS num_rows,
                ROW_NUMBER() OVER (ORDER BY newest.job_id DESC) AS place
            FROM (
                SELECT job_id FROM (
                    (SELECT job_id FROM job FORCE INDEX (status) WHERE status = 'D' AND dag_id = in_dag_id AND job_id < v_next_job_id ORDER BY job_id DESC LIMIT v_max_jobs)
                    UNION ALL
                    (SELECT job_id FROM job FORCE INDEX (status) WHERE status = 'F' AND dag_id = in_dag_id AND job_id < v_next_job_id ORDER BY job_id DESC LIMIT v_max_jobs)
                    UNION ALL
                    (SELECT job_id FROM job FORCE INDEX (status) WHERE status = 'G' AND dag_id = in_dag_id AND job_id < v_next_job_id ORDER BY job_id DESC LIMIT v_max_jobs)
                    UNION ALL
                    (SELECT job_id FROM job FORCE INDEX (status) WHERE status = 'Q' AND dag_id = in_dag_id AND job_id < v_next_job_id ORDER BY job_id DESC LIMIT v_max_jobs)
                ) AS of_each_status
                ORDER BY job_id DESC LIMIT v_max_jobs) AS newest
                STRAIGHT_JOIN job FORCE INDEX (PRIMARY) ON job.job_id = newest.job_id) AS weighed
        WHERE num_rows <= v_max OR place = 1;
    END IF;
    IF v_ids IS NOT NULL THEN
        CALL lock_jobs(v_ids);
        -- tested again, now that they are locked
        SELECT job.job_id INTO v_live_job_id
        FROM (SELECT job_id FROM JSON_TABLE(v_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS ids) AS locked
            STRAIGHT_JOIN job FORCE INDEX (PRIMARY) ON job.job_id = locked.job_id
        WHERE job.status IN ('I', 'R', 'E') LIMIT 1 FOR UPDATE;
        IF v_live_job_id IS NULL THEN
            CALL prune_job_rows(v_ids, v_max, v_archive, v_num_rows, v_gone);
            IF v_gone THEN
                SET v_num_jobs = JSON_LENGTH(v_ids);
                UPDATE pruned_dag SET next_job_id = v_job_id WHERE dag_id = in_dag_id;
            END IF;
        END IF;
    ELSEIF v_live_job_id IS NULL THEN
        SELECT job_id INTO v_job_id FROM job WHERE dag_id = in_dag_id LIMIT 1;
        IF v_job_id IS NOT NULL THEN
            -- somebody added one: from the end again
            UPDATE pruned_dag SET next_job_id = NULL WHERE dag_id = in_dag_id;
        ELSE
            SELECT CONCAT('[', GROUP_CONCAT(workflow_run_attribute_id ORDER BY workflow_run_attribute_id), ']') INTO v_ids FROM (
                SELECT workflow_run_attribute_id FROM workflow
                    STRAIGHT_JOIN workflow_run FORCE INDEX (workflow_id) ON workflow_run.workflow_id = workflow.workflow_id
                    STRAIGHT_JOIN workflow_run_attribute ON workflow_run_attribute.workflow_run_id = workflow_run.workflow_run_id
                WHERE workflow.dag_id = in_dag_id LIMIT v_max) AS attributes;
            CALL prune_rows('workflow_run_attribute', v_id,
                'workflow_run_attribute FORCE INDEX (PRIMARY) ON workflow_run_attribute.workflow_run_attribute_id = gone.id', v_ids, v_archive, v_num_rows);
            IF v_num_rows = 0 THEN
                SELECT CONCAT('[', GROUP_CONCAT(workflow_run_id ORDER BY workflow_run_id), ']') INTO v_ids FROM (
                    SELECT workflow_run_id FROM workflow
                        STRAIGHT_JOIN workflow_run FORCE INDEX (workflow_id) ON workflow_run.workflow_id = workflow.workflow_id
                    WHERE workflow.dag_id = in_dag_id LIMIT v_max) AS runs;
                CALL prune_rows('workflow_run', v_id, 'workflow_run FORCE INDEX (PRIMARY) ON workflow_run.workflow_run_id = gone.id', v_ids, v_archive, v_num_rows);
            END IF;
            IF v_num_rows = 0 THEN
                SELECT CONCAT('[', GROUP_CONCAT(workflow_attribute_id ORDER BY workflow_attribute_id), ']') INTO v_ids FROM (
                    SELECT workflow_attribute_id FROM workflow
                        STRAIGHT_JOIN workflow_attribute ON workflow_attribute.workflow_id = workflow.workflow_id
                    WHERE workflow.dag_id = in_dag_id LIMIT v_max) AS attributes;
                CALL prune_rows('workflow_attribute', v_id,
                    'workflow_attribute FORCE INDEX (PRIMARY) ON workflow_attribute.workflow_attribute_id = gone.id', v_ids, v_archive, v_num_rows);
            END IF;
            IF v_num_rows = 0 THEN
                SELECT CONCAT('[', GROUP_CONCAT(workflow_id ORDER BY workflow_id), ']') INTO v_ids FROM (
                    SELECT workflow_id FROM workflow WHERE dag_id = in_dag_id LIMIT v_max) AS workflows;
                CALL prune_rows('workflow', v_id, 'workflow FORCE INDEX (PRIMARY) ON workflow.workflow_id = gone.id', v_ids, v_archive, v_num_rows);
            END IF;
            IF v_num_rows = 0 THEN
                DELETE FROM pruned_dag WHERE dag_id = in_dag_id;
                CALL prune_rows('task_dag', v_id, 'task_dag FORCE INDEX (PRIMARY) ON task_dag.dag_id = gone.id', JSON_ARRAY(in_dag_id), v_archive, v_num_rows);
                SET v_ended = TRUE;
            END IF;
        END IF;
    END IF;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('ended', JSON_EXTRACT(IF(v_ended, 'true', 'false'), '$'), 'live_job_id', v_live_job_id + 0,
        'num_jobs', v_num_jobs + 0, 'num_rows', v_num_rows + 0) AS document;
END
