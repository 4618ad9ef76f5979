-- Description: The value of an attribute fits its type.
CREATE TRIGGER workflow_attribute_before_update BEFORE UPDATE ON workflow_attribute FOR EACH ROW
BEGIN
    CALL check_attribute('workflow', NEW.attribute_type,
        (SELECT value_type FROM workflow_attribute_type WHERE attribute_type = NEW.attribute_type), NEW.value);
END
