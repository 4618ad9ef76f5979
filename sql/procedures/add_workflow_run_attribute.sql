CREATE PROCEDURE add_workflow_run_attribute(
    in_workflow_run_id BIGINT UNSIGNED,
    in_attribute_type INT UNSIGNED,
    in_value MEDIUMTEXT,
    in_request_key VARCHAR(64)
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: Adds an attribute to a workflow run. The same type may be added repeatedly.
Access: JSM
Parameters:
  in_workflow_run_id: the workflow run
  in_attribute_type: a row of workflow_run_attribute_type
  in_value: fits the value_type of the attribute type; 255 characters
  in_request_key: optional; the call may be repeated under it without a second attribute
Returns: {"workflow_run_attribute_id": n}
Errors: MISSING_PARAMETER, UNKNOWN_WORKFLOW_RUN, UNKNOWN_ATTRIBUTE_TYPE, INVALID_ATTRIBUTE_VALUE, VALUE_TOO_LONG, REQUEST_KEY_CONFLICT
Example: CALL add_workflow_run_attribute(1, 8, ''blue'', NULL);
'
BEGIN
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
    IF in_workflow_run_id IS NULL THEN
        CALL raise_missing_parameter('workflow_run_id');
    END IF;
    IF in_attribute_type IS NULL THEN
        CALL raise_missing_parameter('attribute_type');
    END IF;
    IF in_value IS NULL THEN
        CALL raise_missing_parameter('value');
    END IF;
    CALL begin_work(v_owns);
    CALL recall_request(in_request_key, 'add_workflow_run_attribute', v_document);
    IF v_document IS NULL THEN
        -- exclusively: the foreign key would take a shared lock on a row that others update
        CALL lock_workflow_run(in_workflow_run_id);
        INSERT INTO workflow_run_attribute (workflow_run_id, attribute_type, value) VALUES (in_workflow_run_id, in_attribute_type, in_value);
        SET v_document = JSON_OBJECT('workflow_run_attribute_id', LAST_INSERT_ID());
        UPDATE api_request SET answer = v_document WHERE request_key = in_request_key;
    END IF;
    IF v_owns THEN
        COMMIT;
    ELSE
        RELEASE SAVEPOINT jobmon;
    END IF;
    SELECT v_document AS document;
END
