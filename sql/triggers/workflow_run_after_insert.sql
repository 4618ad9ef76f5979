-- Description: A run that starts takes its workflow to RUNNING.
CREATE TRIGGER workflow_run_after_insert AFTER INSERT ON workflow_run FOR EACH ROW
BEGIN
    UPDATE workflow SET status = 'R' WHERE workflow_id = NEW.workflow_id;
END
