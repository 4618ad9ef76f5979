CREATE PROCEDURE queue_jobs(
    in_dag_id BIGINT UNSIGNED,
    in_job_ids LONGTEXT,
    in_max_jobs INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Queues the REGISTERED jobs of a dag whose upstreams are DONE: all of them, or those of in_job_ids.
Access: JSM
Parameters:
  in_dag_id: the dag
  in_job_ids: optional: array of at most 10000 job ids of this dag
  in_max_jobs: optional, default 10000: at most so many in this call
Returns: {"num_queued": n, "num_left": n}: how many were queued, and how many more could be by another call
Errors: MISSING_PARAMETER, UNKNOWN_DAG, INVALID_JSON_PARAMETER, TOO_MANY_ITEMS, INVALID_PARAMETER, DAG_PRUNED
Example: CALL queue_jobs(1, NULL, NULL);
'
BEGIN
    DECLARE v_dag_id BIGINT UNSIGNED;
    DECLARE v_text VARCHAR(127);
    DECLARE v_position INT UNSIGNED;
    DECLARE v_num_queued INT UNSIGNED;
    DECLARE v_num_left INT UNSIGNED;
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
    -- not IF EXISTS: outside of a SELECT, InnoDB reads with a shared lock
    SELECT dag_id INTO v_dag_id FROM task_dag WHERE dag_id = in_dag_id;
    IF v_dag_id IS NULL THEN
        CALL raise_unknown_dag(in_dag_id);
    END IF;
    IF in_job_ids IS NOT NULL THEN
        CALL check_json_array('job_ids', in_job_ids);
        SELECT MIN(position) INTO v_position
        FROM JSON_TABLE(in_job_ids, '$[*]' COLUMNS (position FOR ORDINALITY, job_id MEDIUMTEXT PATH '$')) AS asked
        WHERE COALESCE(job_id, '') NOT REGEXP '^[0-9]{1,18}\\z';
        IF v_position IS NOT NULL THEN
            SET v_text = CONCAT('INVALID_PARAMETER: item ', v_position, ' of job_ids is no job_id');
            SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002, MESSAGE_TEXT = v_text;
        END IF;
    END IF;
    CALL queue_ready_jobs(in_dag_id, in_job_ids, in_max_jobs, v_num_queued, v_num_left);
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('num_left', v_num_left + 0, 'num_queued', v_num_queued + 0) AS document;
END
