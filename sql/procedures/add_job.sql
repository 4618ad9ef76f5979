CREATE PROCEDURE add_job(
    in_dag_id BIGINT UNSIGNED,
    in_name VARCHAR(255),
    in_job_hash VARCHAR(255),
    in_command MEDIUMTEXT,
    in_slots INT UNSIGNED,
    in_mem_free INT UNSIGNED,
    in_max_attempts INT UNSIGNED,
    in_max_runtime INT UNSIGNED,
    in_context_args MEDIUMTEXT,
    in_tag VARCHAR(255),
    in_request_key VARCHAR(64),
    in_mem_free_scale DECIMAL(6,3),
    in_max_runtime_scale DECIMAL(6,3)
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Adds a job in REGISTERED, or finds the one with this job_hash in the dag.
Access: JSM
Parameters:
  in_dag_id: the dag; optional: a job of its own
  in_name: a name for people
  in_job_hash: its identity in the dag, compared exactly
  in_command: what to run
  in_slots: optional, default 1
  in_mem_free: GB; optional, default 2
  in_max_attempts: the threshold at which it becomes ERROR_FATAL; optional, default 1
  in_max_runtime: seconds from RUNNING; optional
  in_context_args: a JSON text; optional, default {}
  in_tag: optional
  in_request_key: optional; a job without a dag may be added repeatedly under it without a second job
  in_mem_free_scale: optional, 0 to 999.999: when an attempt that exceeded mem_free is retried, mem_free grows by this part of it, rounded up; left out: it stays
  in_max_runtime_scale: optional: max_runtime likewise
Returns: {"job_dct": {...}}
Errors: MISSING_PARAMETER, INVALID_PARAMETER, UNKNOWN_DAG, REQUEST_KEY_CONFLICT, DAG_PRUNED
Example: CALL add_job(1, ''hello'', ''17'', ''echo hello'', NULL, NULL, 3, NULL, NULL, NULL, NULL, 0.5, NULL);
'
BEGIN
    DECLARE v_job_id BIGINT UNSIGNED;
    DECLARE v_answer LONGTEXT;
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
    IF in_name IS NULL THEN
        CALL raise_missing_parameter('name');
    END IF;
    IF in_job_hash IS NULL THEN
        CALL raise_missing_parameter('job_hash');
    END IF;
    IF in_command IS NULL THEN
        CALL raise_missing_parameter('command');
    END IF;
    -- a JSON number of many digits that somebody read as a float: another identity
    IF in_job_hash REGEXP '^[0-9.]+e[+]?[0-9]+\\z' THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002,
            MESSAGE_TEXT = 'INVALID_PARAMETER: job_hash must be a whole number or a string';
    END IF;
    CALL begin_work(v_owns);
    -- the dag's lock makes looking and adding one step
    IF in_dag_id IS NOT NULL THEN
        CALL lock_dag(in_dag_id);
        CALL refuse_pruned_dag(in_dag_id);
        SELECT job_id INTO v_job_id FROM job WHERE dag_id = in_dag_id AND job_hash = in_job_hash;
    END IF;
    CALL recall_request(in_request_key, 'add_job', v_answer);
    SET v_job_id = COALESCE(v_job_id, v_answer);
    IF v_job_id IS NULL THEN
        INSERT INTO job (dag_id, name, job_hash, command, slots, mem_free, max_attempts, max_runtime, context_args, tag,
            mem_free_scale, max_runtime_scale)
        VALUES (in_dag_id, in_name, in_job_hash, in_command, COALESCE(in_slots, 1), COALESCE(in_mem_free, 2),
                COALESCE(in_max_attempts, 1), in_max_runtime, COALESCE(in_context_args, '{}'), in_tag,
                in_mem_free_scale, in_max_runtime_scale);
        SET v_job_id = LAST_INSERT_ID();
    END IF;
    UPDATE api_request SET answer = v_job_id WHERE request_key = in_request_key;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('job_dct', JSON_EXTRACT(document, '$')) AS document FROM job_dct WHERE job_id = v_job_id;
END
