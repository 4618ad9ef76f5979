CREATE PROCEDURE add_jobs(
    in_dag_id BIGINT UNSIGNED,
    in_jobs LONGTEXT
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Adds jobs and their edges to a dag in one call; jobs that the dag has already (by job_hash) are found, not added.
Access: JSM
Parameters:
  in_dag_id: the dag
  in_jobs: array of at most 10000 objects, upstream jobs before their downstream jobs: name, job_hash (a string), command; optionally slots, mem_free, max_attempts, max_runtime, context_args, tag, mem_free_scale, max_runtime_scale as in add_job, upstream_job_hashes (array of job_hash), and attributes (array of {"attribute_type": n, "value": text}, the same one is kept once)
Returns: {"job_ids": [n, ...]} in the order of in_jobs
Errors: MISSING_PARAMETER, INVALID_JSON_PARAMETER, TOO_MANY_ITEMS, INVALID_PARAMETER, NULL_NOT_ALLOWED, INVALID_VALUE, VALUE_OUT_OF_RANGE, VALUE_TOO_LONG, UNKNOWN_ATTRIBUTE_TYPE, INVALID_ATTRIBUTE_VALUE, DUPLICATE_JOB_HASH, UNKNOWN_DAG, UNKNOWN_UPSTREAM, UPSTREAM_AFTER_DOWNSTREAM, JOB_NOT_REGISTERED, DAG_PRUNED
Example: CALL add_jobs(1, ''[{"name": "a", "job_hash": "1", "command": "true"}, {"name": "b", "job_hash": "2", "command": "true", "upstream_job_hashes": ["1"]}]'');
'
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_hash VARCHAR(255);
    DECLARE v_type VARCHAR(64);
    DECLARE v_unknown LONGTEXT;
    DECLARE v_position INT UNSIGNED;
    DECLARE v_document LONGTEXT;
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
    IF in_jobs IS NULL THEN
        CALL raise_missing_parameter('jobs');
    END IF;
    CALL begin_work(v_owns);
    CALL check_json_array('jobs', in_jobs);

    SET @@SESSION.group_concat_max_len = 67108864;
    DROP TEMPORARY TABLE IF EXISTS tmp_job, tmp_edge, tmp_attribute;
    CREATE TEMPORARY TABLE tmp_job (
        position INT UNSIGNED NOT NULL PRIMARY KEY,
        job_hash VARCHAR(255) NOT NULL,
        name VARCHAR(255) NOT NULL,
        command MEDIUMTEXT NOT NULL,
        slots INT UNSIGNED NULL,
        mem_free INT UNSIGNED NULL,
        max_attempts INT UNSIGNED NULL,
        max_runtime INT UNSIGNED NULL,
        context_args MEDIUMTEXT NULL,
        tag VARCHAR(255) NULL,
        mem_free_scale DECIMAL(6,3) NULL,
        max_runtime_scale DECIMAL(6,3) NULL,
        job_id BIGINT UNSIGNED NULL,
        UNIQUE KEY (job_hash)
    ) ENGINE = InnoDB;
    CREATE TEMPORARY TABLE tmp_edge (
        position INT UNSIGNED NOT NULL,
        upstream_job_hash VARCHAR(255) NOT NULL,
        upstream_job_id BIGINT UNSIGNED NULL,
        downstream_job_id BIGINT UNSIGNED NULL
    ) ENGINE = InnoDB;
    CREATE TEMPORARY TABLE tmp_attribute (
        position INT UNSIGNED NOT NULL,
        attribute_type INT UNSIGNED NULL,
        value MEDIUMTEXT NULL
    ) ENGINE = InnoDB;

    CALL find_unknown_keys(in_jobs, '["name", "job_hash", "command", "slots", "mem_free", "max_attempts", "max_runtime", "context_args", "tag", "mem_free_scale", "max_runtime_scale", "upstream_job_hashes", "attributes"]', v_unknown);
    IF v_unknown IS NOT NULL THEN
        SET v_text = CONCAT('INVALID_PARAMETER: job ', JSON_VALUE(v_unknown, '$[0].position'), ' of jobs has an unknown key: ', JSON_VALUE(v_unknown, '$[0].key'));
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002, MESSAGE_TEXT = v_text;
    END IF;
    -- JSON_TABLE takes an object or an array for no value at all, and an edge must not get lost like that
    SELECT MIN(JSON_TYPE(value)) INTO v_type
    FROM JSON_TABLE(JSON_EXTRACT(in_jobs, '$[*].job_hash', '$[*].name', '$[*].command', '$[*].slots', '$[*].mem_free',
        '$[*].max_attempts', '$[*].max_runtime', '$[*].context_args', '$[*].tag',
        '$[*].mem_free_scale', '$[*].max_runtime_scale'), '$[*]' COLUMNS (value JSON PATH '$')) AS given
    WHERE CAST(JSON_TYPE(value) AS BINARY) IN ('OBJECT', 'ARRAY');
    IF v_type IS NOT NULL THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002,
            MESSAGE_TEXT = 'INVALID_PARAMETER: jobs have an object or an array where a text or a number is needed';
    END IF;
    SELECT MIN(JSON_TYPE(value)) INTO v_type
    FROM JSON_TABLE(JSON_EXTRACT(in_jobs, '$[*].upstream_job_hashes', '$[*].attributes'), '$[*]' COLUMNS (value JSON PATH '$')) AS given
    WHERE CAST(JSON_TYPE(value) AS BINARY) NOT IN ('ARRAY', 'NULL');
    IF v_type IS NOT NULL THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002,
            MESSAGE_TEXT = 'INVALID_PARAMETER: upstream_job_hashes and attributes must be arrays';
    END IF;
    -- a value that does not fit its column here is the caller's, before anything is written
    BEGIN
        DECLARE EXIT HANDLER FOR 1062
            SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32008,
                MESSAGE_TEXT = 'DUPLICATE_JOB_HASH: a job_hash stands twice in jobs';
        INSERT INTO tmp_job (position, job_hash, name, command, slots, mem_free, max_attempts, max_runtime, context_args, tag,
            mem_free_scale, max_runtime_scale)
        SELECT position, job_hash, name, command,
            -- what is no whole number stays so, and is refused: it would be rounded
            IF(slots REGEXP '^-?[0-9]+\\z', slots, CONCAT('no whole number: ', slots)),
            IF(mem_free REGEXP '^-?[0-9]+\\z', mem_free, CONCAT('no whole number: ', mem_free)),
            IF(max_attempts REGEXP '^-?[0-9]+\\z', max_attempts, CONCAT('no whole number: ', max_attempts)),
            IF(max_runtime REGEXP '^-?[0-9]+\\z', max_runtime, CONCAT('no whole number: ', max_runtime)),
            context_args, tag,
            IF(mem_free_scale REGEXP '^-?[0-9.]+([eE][-+]?[0-9]+)?\\z', mem_free_scale, CONCAT('no number: ', mem_free_scale)),
            IF(max_runtime_scale REGEXP '^-?[0-9.]+([eE][-+]?[0-9]+)?\\z', max_runtime_scale, CONCAT('no number: ', max_runtime_scale))
        FROM JSON_TABLE(in_jobs, '$[*]' COLUMNS (
            position FOR ORDINALITY,
            job_hash MEDIUMTEXT PATH '$.job_hash',
            name MEDIUMTEXT PATH '$.name',
            command MEDIUMTEXT PATH '$.command',
            slots MEDIUMTEXT PATH '$.slots',
            mem_free MEDIUMTEXT PATH '$.mem_free',
            max_attempts MEDIUMTEXT PATH '$.max_attempts',
            max_runtime MEDIUMTEXT PATH '$.max_runtime',
            context_args MEDIUMTEXT PATH '$.context_args',
            tag MEDIUMTEXT PATH '$.tag',
            mem_free_scale MEDIUMTEXT PATH '$.mem_free_scale',
            max_runtime_scale MEDIUMTEXT PATH '$.max_runtime_scale')) AS added;
    END;
    -- MySQL reads a JSON number of more than 64 bits as a float, which is another hash
    SELECT MIN(job_hash) INTO v_hash FROM tmp_job WHERE job_hash REGEXP '^[0-9.]+e[+]?[0-9]+\\z';
    IF v_hash IS NOT NULL THEN
        SET v_text = CONCAT('INVALID_PARAMETER: job_hash ', LEFT(v_hash, 60), ' must be sent as a string');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002, MESSAGE_TEXT = v_text;
    END IF;
    INSERT INTO tmp_edge (position, upstream_job_hash)
    SELECT position, upstream_job_hash
    FROM JSON_TABLE(in_jobs, '$[*]' COLUMNS (
        position FOR ORDINALITY,
        NESTED PATH '$.upstream_job_hashes[*]' COLUMNS (
            upstream FOR ORDINALITY,
            upstream_job_hash MEDIUMTEXT PATH '$'))) AS edge
    WHERE upstream IS NOT NULL;
    INSERT INTO tmp_attribute (position, attribute_type, value)
    SELECT position, IF(attribute_type REGEXP '^[0-9]{1,9}\\z', attribute_type, NULL), value
    FROM JSON_TABLE(in_jobs, '$[*]' COLUMNS (
        position FOR ORDINALITY,
        NESTED PATH '$.attributes[*]' COLUMNS (
            attribute FOR ORDINALITY,
            attribute_type MEDIUMTEXT PATH '$.attribute_type',
            value MEDIUMTEXT PATH '$.value'))) AS sent
    WHERE attribute IS NOT NULL;
    SELECT MIN(position) INTO v_position FROM tmp_attribute WHERE attribute_type IS NULL OR value IS NULL;
    IF v_position IS NOT NULL THEN
        SET v_text = CONCAT('INVALID_PARAMETER: job ', v_position, ' of jobs: an attribute needs an attribute_type (a number) and a value');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002, MESSAGE_TEXT = v_text;
    END IF;
    -- calls that add to one dag take turns, so what is not there now is added by nobody else
    CALL lock_dag(in_dag_id);
    CALL refuse_pruned_dag(in_dag_id);
    INSERT INTO job (dag_id, name, job_hash, command, slots, mem_free, max_attempts, max_runtime, context_args, tag,
        mem_free_scale, max_runtime_scale)
    SELECT in_dag_id, tmp_job.name, tmp_job.job_hash, tmp_job.command, COALESCE(tmp_job.slots, 1), COALESCE(tmp_job.mem_free, 2),
        COALESCE(tmp_job.max_attempts, 1), tmp_job.max_runtime, COALESCE(tmp_job.context_args, '{}'), tmp_job.tag,
        tmp_job.mem_free_scale, tmp_job.max_runtime_scale
    FROM tmp_job LEFT JOIN job FORCE INDEX (job_hash_once) ON job.dag_id = in_dag_id AND job.job_hash = tmp_job.job_hash
    WHERE job.job_id IS NULL
    -- ids in the order of the call: upstream jobs get the smaller ones
    ORDER BY tmp_job.position;
    UPDATE tmp_job STRAIGHT_JOIN job FORCE INDEX (job_hash_once) ON job.dag_id = in_dag_id AND job.job_hash = tmp_job.job_hash
    SET tmp_job.job_id = job.job_id;
    UPDATE tmp_edge STRAIGHT_JOIN tmp_job ON tmp_job.position = tmp_edge.position
    SET tmp_edge.downstream_job_id = tmp_job.job_id;
    UPDATE tmp_edge STRAIGHT_JOIN job FORCE INDEX (job_hash_once) ON job.dag_id = in_dag_id AND job.job_hash = tmp_edge.upstream_job_hash
    SET tmp_edge.upstream_job_id = job.job_id;
    SELECT MIN(upstream_job_hash) INTO v_hash FROM tmp_edge WHERE upstream_job_id IS NULL;
    IF v_hash IS NOT NULL THEN
        SET v_text = CONCAT('UNKNOWN_UPSTREAM: dag ', in_dag_id, ' has no job with job_hash ', LEFT(v_hash, 60));
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32009, MESSAGE_TEXT = v_text;
    END IF;
    INSERT INTO job_edge (upstream_job_id, downstream_job_id)
    SELECT DISTINCT tmp_edge.upstream_job_id, tmp_edge.downstream_job_id
    FROM tmp_edge LEFT JOIN job_edge ON job_edge.upstream_job_id = tmp_edge.upstream_job_id
        AND job_edge.downstream_job_id = tmp_edge.downstream_job_id
    WHERE job_edge.upstream_job_id IS NULL
    ORDER BY tmp_edge.upstream_job_id, tmp_edge.downstream_job_id;
    INSERT INTO job_attribute (job_id, attribute_type, value)
    SELECT DISTINCT tmp_job.job_id, tmp_attribute.attribute_type, tmp_attribute.value
    FROM tmp_attribute JOIN tmp_job ON tmp_job.position = tmp_attribute.position
        LEFT JOIN job_attribute ON job_attribute.job_id = tmp_job.job_id
            AND job_attribute.attribute_type = tmp_attribute.attribute_type AND job_attribute.value = tmp_attribute.value
    WHERE job_attribute.job_attribute_id IS NULL
    -- the foreign key locks jobs that were there before
    ORDER BY tmp_job.job_id, tmp_attribute.attribute_type, tmp_attribute.value;
    SELECT CONCAT('{"job_ids": [', COALESCE(GROUP_CONCAT(job_id ORDER BY position), ''), ']}') INTO v_document FROM tmp_job;
    DROP TEMPORARY TABLE tmp_job, tmp_edge, tmp_attribute;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT v_document AS document;
END
