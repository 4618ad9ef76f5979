CREATE PROCEDURE reset_incomplete_jobs(
    in_dag_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: For a resume: takes all jobs of a dag that are not DONE back to REGISTERED with no attempts made. Live job instances end in ERROR. An unknown dag is no error (emu).
Access: JSM
Parameters:
  in_dag_id: the dag
Returns: {}
Errors: MISSING_PARAMETER, DAG_PRUNED
Example: CALL reset_incomplete_jobs(1);
'
BEGIN
    DECLARE v_ids LONGTEXT;
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
    -- those in G too: one may be queued before it is locked
    SELECT CONCAT('[', GROUP_CONCAT(job_id ORDER BY job_id), ']') INTO v_ids
    FROM job WHERE dag_id = in_dag_id AND status <> 'D';
    CALL lock_jobs(v_ids);
    UPDATE JSON_TABLE(v_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS incomplete
        STRAIGHT_JOIN job FORCE INDEX (PRIMARY) ON job.job_id = incomplete.job_id
    SET job.status = 'G'
    WHERE job.status NOT IN ('G', 'D');
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT '{}' AS document;
END
