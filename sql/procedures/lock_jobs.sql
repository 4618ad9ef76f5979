CREATE PROCEDURE lock_jobs(
    in_job_ids LONGTEXT
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Takes the first locks of the lock order: many jobs, exclusively, in the order of the array.
Access: internal
Parameters:
  in_job_ids: JSON array of job ids, ascending; NULL: none
Example: CALL lock_jobs(''[1, 2]'');
'
BEGIN
    DECLARE v_count BIGINT;
    -- the derived table: MySQL refuses FOR UPDATE beside a bare JSON_TABLE; by primary key, or a long list in a small
    -- table would scan it and lock every row
    SELECT COUNT(*) INTO v_count
    FROM (SELECT job_id FROM JSON_TABLE(in_job_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS ids) AS asked
        STRAIGHT_JOIN job FORCE INDEX (PRIMARY) ON job.job_id = asked.job_id
    FOR UPDATE;
END
