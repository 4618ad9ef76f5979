CREATE PROCEDURE add_workflow(
    in_dag_id BIGINT UNSIGNED,
    in_workflow_args MEDIUMTEXT,
    in_workflow_hash MEDIUMTEXT,
    in_name VARCHAR(150),
    in_user VARCHAR(150),
    in_description MEDIUMTEXT
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Adds a workflow in CREATED, or finds the one of this dag with these workflow_args.
Access: JSM
Parameters:
  in_dag_id: its dag
  in_workflow_args: compared exactly
  in_workflow_hash: the digest of args and dag; two dags can not have the same
  in_name: a name for people
  in_user: who owns it
  in_description: optional
Returns: {"workflow_dct": {...}}
Errors: MISSING_PARAMETER, UNKNOWN_DAG, WORKFLOW_HASH_TAKEN, DAG_PRUNED
Example: CALL add_workflow(1, ''v1'', SHA2(''v1'', 256), ''sims'', ''ann'', NULL);
'
BEGIN
    DECLARE v_workflow_id BIGINT UNSIGNED;
    DECLARE v_taken BOOLEAN DEFAULT FALSE;
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
    IF in_workflow_args IS NULL THEN
        CALL raise_missing_parameter('workflow_args');
    END IF;
    IF in_workflow_hash IS NULL THEN
        CALL raise_missing_parameter('workflow_hash');
    END IF;
    IF in_name IS NULL THEN
        CALL raise_missing_parameter('name');
    END IF;
    IF in_user IS NULL THEN
        CALL raise_missing_parameter('user');
    END IF;
    CALL begin_work(v_owns);
    -- the dag's lock makes looking and adding one step; between dags the unique key on the hash decides
    CALL lock_dag(in_dag_id);
    SELECT workflow_id INTO v_workflow_id FROM workflow
    WHERE dag_id = in_dag_id AND workflow_args_key = UNHEX(SHA2(in_workflow_args, 256));
    IF v_workflow_id IS NULL THEN
        BEGIN
            DECLARE CONTINUE HANDLER FOR 1062 SET v_taken = TRUE;
            INSERT INTO workflow (dag_id, workflow_args, workflow_hash, name, user, description)
            VALUES (in_dag_id, in_workflow_args, in_workflow_hash, in_name, in_user, COALESCE(in_description, ''));
        END;
        IF v_taken THEN
            SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32041,
                MESSAGE_TEXT = 'WORKFLOW_HASH_TAKEN: this workflow_hash belongs to a workflow of another dag, or with other args';
        END IF;
        SET v_workflow_id = LAST_INSERT_ID();
    END IF;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('workflow_dct', JSON_EXTRACT(document, '$')) AS document FROM workflow_dct WHERE workflow_id = v_workflow_id;
END
