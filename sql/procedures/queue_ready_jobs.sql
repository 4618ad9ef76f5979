CREATE PROCEDURE queue_ready_jobs(
    in_dag_id BIGINT UNSIGNED,
    in_job_ids LONGTEXT,
    in_max_jobs INT UNSIGNED,
    OUT out_num_queued INT UNSIGNED,
    OUT out_num_left INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Queues the REGISTERED jobs of a dag whose upstreams are DONE.
Access: internal
Parameters:
  in_dag_id: the dag
  in_job_ids: only these, a JSON array of ids; NULL: all
  in_max_jobs: at most so many; NULL: 10000, which is the most
  out_num_queued: how many were queued
  out_num_left: how many more could be
Example: CALL queue_ready_jobs(1, NULL, NULL, v_num_queued, v_num_left);
'
BEGIN
    DECLARE v_ids LONGTEXT;
    DECLARE v_max_jobs INT UNSIGNED DEFAULT LEAST(COALESCE(in_max_jobs, 10000), 10000);
    SET @@SESSION.group_concat_max_len = 67108864;
    IF in_job_ids IS NOT NULL THEN
        SELECT CONCAT('[', GROUP_CONCAT(job_id ORDER BY job_id), ']') INTO v_ids FROM (
            SELECT DISTINCT job.job_id
            FROM JSON_TABLE(in_job_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS asked
                STRAIGHT_JOIN job ON job.job_id = asked.job_id
            WHERE job.dag_id = in_dag_id ORDER BY job.job_id LIMIT v_max_jobs) AS asked_here;
    ELSE
        SELECT CONCAT('[', GROUP_CONCAT(job_id ORDER BY job_id), ']') INTO v_ids FROM (
            SELECT job.job_id FROM job FORCE INDEX (status) LEFT JOIN job_gate FORCE INDEX (PRIMARY) ON job_gate.job_id = job.job_id
            WHERE job.dag_id = in_dag_id AND job.status = 'G' AND COALESCE(job_gate.upstreams_pending, 0) = 0
            ORDER BY job.job_id LIMIT v_max_jobs) AS ready;
    END IF;
    CALL lock_jobs(v_ids);
    UPDATE JSON_TABLE(v_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS ready
        STRAIGHT_JOIN job FORCE INDEX (PRIMARY) ON job.job_id = ready.job_id
        LEFT JOIN job_gate ON job_gate.job_id = job.job_id
    SET job.status = 'Q'
    WHERE job.status = 'G' AND COALESCE(job_gate.upstreams_pending, 0) = 0;
    SET out_num_queued = ROW_COUNT();
    SELECT COUNT(*) INTO out_num_left
    FROM job FORCE INDEX (status) LEFT JOIN job_gate FORCE INDEX (PRIMARY) ON job_gate.job_id = job.job_id
    WHERE job.dag_id = in_dag_id AND job.status = 'G' AND COALESCE(job_gate.upstreams_pending, 0) = 0;
END
