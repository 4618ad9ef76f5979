CREATE PROCEDURE prune_job_rows(
    in_job_ids LONGTEXT,
    in_max_rows INT UNSIGNED,
    in_archive BOOLEAN,
    INOUT inout_num_rows BIGINT,
    OUT out_gone BOOLEAN
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Deletes jobs that are locked, and at rest, and have no downstream jobs any more: each with all that belongs to it, so that what is left is right after each transaction (history, count of attempts, gates). Edges and attributes, of which one job may have any number, go before the jobs, in transactions of their own if they are many.
Access: internal
Parameters:
  in_job_ids: JSON array, ascending
  in_max_rows: edges or attributes at most, before the jobs are left for the next call
  in_archive: whether rows are copied to the archive_... tables
  inout_num_rows: is raised by the number of rows deleted
  out_gone: whether the jobs themselves were deleted
Example: CALL prune_job_rows(''[1, 2]'', 1000, FALSE, v_num_rows, v_gone);
'
BEGIN
    DECLARE v_edges LONGTEXT;
    DECLARE v_attributes LONGTEXT;
    DECLARE v_id VARCHAR(64) DEFAULT 'id BIGINT UNSIGNED PATH ''$''';
    DECLARE v_instances VARCHAR(255) DEFAULT 'job_instance FORCE INDEX (attempt_once) ON job_instance.job_id = gone.id';
    SET out_gone = FALSE;
    SELECT CONCAT('[', GROUP_CONCAT(JSON_ARRAY(upstream_job_id, downstream_job_id) ORDER BY upstream_job_id, downstream_job_id), ']') INTO v_edges FROM (
        SELECT job_edge.upstream_job_id, job_edge.downstream_job_id
        FROM JSON_TABLE(in_job_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS gone
            STRAIGHT_JOIN job_edge FORCE INDEX (downstream_job_id) ON job_edge.downstream_job_id = gone.job_id
        LIMIT in_max_rows) AS edges;
    IF JSON_LENGTH(v_edges) = in_max_rows THEN
        -- more may be left, and these jobs with them: their gates must count what is left
        UPDATE (
            SELECT edges.downstream_job_id, COUNT(*) AS num_pending
            FROM JSON_TABLE(v_edges, '$[*]' COLUMNS (upstream_job_id BIGINT UNSIGNED PATH '$[0]', downstream_job_id BIGINT UNSIGNED PATH '$[1]')) AS edges
                STRAIGHT_JOIN job AS upstream FORCE INDEX (PRIMARY) ON upstream.job_id = edges.upstream_job_id
            WHERE upstream.status <> 'D' GROUP BY edges.downstream_job_id) AS counted
            STRAIGHT_JOIN job_gate FORCE INDEX (PRIMARY) ON job_gate.job_id = counted.downstream_job_id
        SET job_gate.upstreams_pending = job_gate.upstreams_pending - counted.num_pending;
    END IF;
    CALL prune_rows('job_edge', 'upstream_job_id BIGINT UNSIGNED PATH ''$[0]'', downstream_job_id BIGINT UNSIGNED PATH ''$[1]''',
        'job_edge FORCE INDEX (PRIMARY) ON job_edge.upstream_job_id = gone.upstream_job_id AND job_edge.downstream_job_id = gone.downstream_job_id',
        v_edges, in_archive, inout_num_rows);
    IF inout_num_rows < in_max_rows THEN
        SELECT CONCAT('[', GROUP_CONCAT(job_attribute_id ORDER BY job_attribute_id), ']') INTO v_attributes FROM (
            SELECT job_attribute.job_attribute_id
            FROM JSON_TABLE(in_job_ids, '$[*]' COLUMNS (job_id BIGINT UNSIGNED PATH '$')) AS gone
                STRAIGHT_JOIN job_attribute FORCE INDEX (job_id) ON job_attribute.job_id = gone.job_id
            LIMIT in_max_rows) AS attributes;
        CALL prune_rows('job_attribute', v_id, 'job_attribute FORCE INDEX (PRIMARY) ON job_attribute.job_attribute_id = gone.id',
            v_attributes, in_archive, inout_num_rows);
    END IF;
    IF inout_num_rows < in_max_rows THEN
        CALL prune_rows('job_gate', v_id, 'job_gate FORCE INDEX (PRIMARY) ON job_gate.job_id = gone.id', in_job_ids, in_archive, inout_num_rows);
        CALL prune_rows('job_instance_error_log', v_id,
            CONCAT(v_instances, ' STRAIGHT_JOIN job_instance_error_log FORCE INDEX (job_instance_id) ON job_instance_error_log.job_instance_id = job_instance.job_instance_id'),
            in_job_ids, in_archive, inout_num_rows);
        CALL prune_rows('job_instance_status_log', v_id,
            CONCAT(v_instances, ' STRAIGHT_JOIN job_instance_status_log FORCE INDEX (job_instance_id) ON job_instance_status_log.job_instance_id = job_instance.job_instance_id'),
            in_job_ids, in_archive, inout_num_rows);
        CALL prune_rows('job_instance', v_id, v_instances, in_job_ids, in_archive, inout_num_rows);
        CALL prune_rows('job_status_log', v_id, 'job_status_log FORCE INDEX (job_id) ON job_status_log.job_id = gone.id', in_job_ids, in_archive, inout_num_rows);
        CALL prune_rows('job', v_id, 'job FORCE INDEX (PRIMARY) ON job.job_id = gone.id', in_job_ids, in_archive, inout_num_rows);
        SET out_gone = TRUE;
    END IF;
END
