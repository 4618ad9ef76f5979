CREATE FUNCTION publish_message(
    in_job_instance_id BIGINT UNSIGNED
)
    RETURNS VARCHAR(127)
    SQL SECURITY DEFINER
    NOT DETERMINISTIC
    READS SQL DATA
    COMMENT '
Description: What emu clients call the message of a report: dag_id [job_id, "letter"] where the report leaves the job in
  DONE or ERROR_FATAL, else empty.
Access: internal
Parameters:
  in_job_instance_id: the job instance
Returns: the message
Example: SELECT publish_message(1);
'
BEGIN
    DECLARE v_message VARCHAR(127);
    SELECT IF(job.status IN ('D', 'F'), CONCAT(COALESCE(job.dag_id, 'null'), ' [', job.job_id, ', "', job.status, '"]'), '')
    INTO v_message
    FROM job_instance JOIN job ON job.job_id = job_instance.job_id
    WHERE job_instance.job_instance_id = in_job_instance_id;
    RETURN v_message;
END
