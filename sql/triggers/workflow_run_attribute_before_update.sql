-- Description: The value of an attribute fits its type.
CREATE TRIGGER workflow_run_attribute_before_update BEFORE UPDATE ON workflow_run_attribute FOR EACH ROW
BEGIN
    CALL check_attribute('workflow_run', NEW.attribute_type,
        (SELECT value_type FROM workflow_run_attribute_type WHERE attribute_type = NEW.attribute_type), NEW.value);
END
