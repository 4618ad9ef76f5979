CREATE PROCEDURE reset_job(
    in_job_id BIGINT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Takes a job back to REGISTERED with no attempts made, whatever its status. Its live job instance ends in ERROR. The jobs downstream of it, and of them, are reset first.
Access: JSM
Parameters:
  in_job_id: the job
Returns: {}
Errors: MISSING_PARAMETER, UNKNOWN_JOB, DAG_PRUNED
Example: CALL reset_job(1);
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
    CALL begin_work(v_owns);
    CALL lock_job(in_job_id);
    SET @@SESSION.group_concat_max_len = 67108864;
    -- edges are never taken away, and a job gets no new upstream once it has left G
    SELECT CONCAT('[', GROUP_CONCAT(job_id ORDER BY job_id), ']') INTO v_ids FROM (
        WITH RECURSIVE descendant (job_id) AS (
            SELECT in_job_id
            UNION
            SELECT job_edge.downstream_job_id FROM descendant JOIN job_edge ON job_edge.upstream_job_id = descendant.job_id
        )
        SELECT job_id FROM descendant) AS descendants;
    CALL lock_jobs(v_ids);
    -- downstream jobs before their upstreams, and edges lead to larger ids
    SELECT CONCAT('[', GROUP_CONCAT(job_id ORDER BY job_id DESC), ']') INTO v_ids
    FROM JSON_TABLE(v_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS descendant;
    UPDATE JSON_TABLE(v_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS descendant
        STRAIGHT_JOIN job FORCE INDEX (PRIMARY) ON job.job_id = descendant.job_id
    SET job.status = 'G'
    WHERE job.status <> 'G';
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT '{}' AS document;
END
