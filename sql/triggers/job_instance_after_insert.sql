-- Description: Making a job instance adds 1 to its job's num_attempts and takes the job to INSTANTIATED.
CREATE TRIGGER job_instance_after_insert AFTER INSERT ON job_instance FOR EACH ROW
BEGIN
    INSERT INTO job_instance_status_log (job_instance_id, from_status, status, status_date)
    VALUES (NEW.job_instance_id, NULL, NEW.status, NEW.status_date);
    UPDATE job SET status = 'I' WHERE job_id = NEW.job_id;
END
