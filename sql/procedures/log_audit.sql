CREATE PROCEDURE log_audit(
    in_audit VARCHAR(64),
    in_num_violations INT UNSIGNED,
    in_sample LONGTEXT
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Keeps what was read in an audit view. Violations are an alarm, told once until the view has been seen empty again.
Access: JSM
Parameters:
  in_audit: the view, one of audit_*
  in_num_violations: how many rows were read
  in_sample: some of them as text; optional, cut to 1000 characters
Returns: {"violated_since": date or null}
Errors: MISSING_PARAMETER, INVALID_PARAMETER
Example: CALL log_audit(''audit_gate'', 0, NULL);
'
BEGIN
    DECLARE v_violated_since DATETIME(6);
    DECLARE v_name VARCHAR(64);
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
    IF in_audit IS NULL THEN
        CALL raise_missing_parameter('audit');
    END IF;
    IF in_num_violations IS NULL THEN
        CALL raise_missing_parameter('num_violations');
    END IF;
    CALL begin_work(v_owns);
    SELECT object_name INTO v_name FROM schema_object WHERE object_type = 'VIEW' AND object_name = in_audit AND LEFT(object_name, 6) = 'audit_';
    IF v_name IS NULL THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002, MESSAGE_TEXT = 'INVALID_PARAMETER: audit must be the name of an audit view';
    END IF;
    INSERT INTO audit_state (audit, check_date, num_violations, violated_since, sample)
    VALUES (in_audit, UTC_TIMESTAMP(6), in_num_violations, IF(in_num_violations > 0, UTC_TIMESTAMP(6), NULL),
        IF(in_num_violations > 0, cut_text(in_sample, 1000), NULL))
    ON DUPLICATE KEY UPDATE
        violated_since = IF(VALUES(num_violations) > 0, COALESCE(violated_since, VALUES(violated_since)), NULL),
        check_date = VALUES(check_date), num_violations = VALUES(num_violations), sample = VALUES(sample);
    SELECT violated_since INTO v_violated_since FROM audit_state WHERE audit = in_audit;
    INSERT INTO notification (kind, dedup_key, message)
    SELECT 'AUDIT_VIOLATED', CONCAT('AUDIT_VIOLATED ', audit, ' ', violated_since),
        CONCAT('Jobmon''s own data are wrong: ', audit, ' must be empty and is not. The first of what it shows: ', COALESCE(sample, '?'),
            '. Look at it: jobmon status; and keep a dump of the database')
    FROM audit_state
    WHERE audit = in_audit AND violated_since IS NOT NULL
        AND (SELECT 1 FROM notification AS told WHERE told.dedup_key = CONCAT('AUDIT_VIOLATED ', audit_state.audit, ' ', audit_state.violated_since)) IS NULL
    ON DUPLICATE KEY UPDATE kind = notification.kind;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT JSON_OBJECT('violated_since', DATE_FORMAT(v_violated_since, '%Y-%m-%dT%H:%i:%s')) AS document;
END
