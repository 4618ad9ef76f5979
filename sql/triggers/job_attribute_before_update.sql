-- Description: The value of an attribute fits its type.
CREATE TRIGGER job_attribute_before_update BEFORE UPDATE ON job_attribute FOR EACH ROW
BEGIN
    CALL check_attribute('job', NEW.attribute_type,
        (SELECT value_type FROM job_attribute_type WHERE attribute_type = NEW.attribute_type), NEW.value);
END
