CREATE PROCEDURE apply_plain_events(
    in_wave INT UNSIGNED,
    in_position INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: The part of log_events that writes: all plain events of a wave of tmp_event, or one event, plain or not.
Access: internal
Parameters:
  in_wave: the wave
  in_position: the one event; NULL: all plain ones
Errors: those of the triggers on job_instance, JOB_INSTANCE_SUPERSEDED, JOB_INSTANCE_ENDED
Example: CALL apply_plain_events(1, NULL);
'
BEGIN
    DECLARE v_event VARCHAR(16);
    DECLARE v_job_instance_id BIGINT UNSIGNED;
    IF in_position IS NOT NULL THEN
        SELECT event, job_instance_id INTO v_event, v_job_instance_id FROM tmp_event WHERE position = in_position;
        CASE v_event
        WHEN 'heartbeat' THEN CALL refuse_ended(v_job_instance_id);
        WHEN 'warning' THEN CALL refuse_ended(v_job_instance_id);
        WHEN 'executor_name' THEN CALL refuse_ended(v_job_instance_id);
        WHEN 'executor_id' THEN CALL refuse_superseded(v_job_instance_id);
        ELSE BEGIN END;
        END CASE;
    END IF;
    -- Several statements, so that the one of every event carries no long texts through the server's temporary tables; and
    -- by primary key, since a scan would lock the rows of others.
    IF EXISTS (SELECT 1 FROM tmp_event WHERE wave = in_wave AND to_status NOT IN ('R', 'D')) THEN
        -- only with a transition: the first message stays when the report is repeated, and a refused one leaves none
        UPDATE tmp_event
            STRAIGHT_JOIN job_instance FORCE INDEX (PRIMARY) ON job_instance.job_instance_id = tmp_event.job_instance_id
            STRAIGHT_JOIN job_instance_transition ON job_instance_transition.from_status = job_instance.status
                AND job_instance_transition.to_status = tmp_event.to_status
        SET job_instance.error_message = tmp_event.error_message
        WHERE tmp_event.wave = in_wave AND ((in_position IS NULL AND tmp_event.plain) OR tmp_event.position = in_position)
            AND tmp_event.to_status NOT IN ('R', 'D');
    END IF;
    UPDATE tmp_event
        STRAIGHT_JOIN job_instance FORCE INDEX (PRIMARY) ON job_instance.job_instance_id = tmp_event.job_instance_id
    SET job_instance.status = COALESCE(tmp_event.to_status,
            IF(tmp_event.event = 'executor_id' AND job_instance.status = 'I', 'B', job_instance.status)),
        job_instance.exceeded = COALESCE(tmp_event.exceeded, job_instance.exceeded),
        job_instance.nodename = COALESCE(tmp_event.nodename, job_instance.nodename),
        job_instance.process_group_id = COALESCE(tmp_event.process_group_id, job_instance.process_group_id),
        job_instance.executor_id = COALESCE(tmp_event.executor_id, job_instance.executor_id),
        job_instance.executor_name = COALESCE(tmp_event.executor_name, job_instance.executor_name),
        job_instance.report_by_date = COALESCE(IF(tmp_event.event = 'heartbeat',
            UTC_TIMESTAMP(6) + INTERVAL COALESCE(tmp_event.lease_seconds, job_instance.lease_seconds) SECOND, NULL),
            job_instance.report_by_date),
        job_instance.lease_seconds = COALESCE(tmp_event.lease_seconds, job_instance.lease_seconds)
    WHERE tmp_event.wave = in_wave AND ((in_position IS NULL AND tmp_event.plain) OR tmp_event.position = in_position);
    IF EXISTS (SELECT 1 FROM tmp_event WHERE wave = in_wave AND event = 'warning') THEN
        -- a warning that repeats the newest row is the same one
        INSERT INTO job_instance_error_log (job_instance_id, error_time, severity, description)
        SELECT tmp_event.job_instance_id, UTC_TIMESTAMP(6), 'warning', tmp_event.error_message FROM tmp_event
        WHERE tmp_event.wave = in_wave AND ((in_position IS NULL AND tmp_event.plain) OR tmp_event.position = in_position)
            AND tmp_event.event = 'warning'
            AND NOT EXISTS (
                SELECT 1 FROM job_instance_error_log AS newest
                WHERE newest.job_instance_error_log_id = (
                        SELECT MAX(logged.job_instance_error_log_id) FROM job_instance_error_log AS logged
                        WHERE logged.job_instance_id = tmp_event.job_instance_id)
                    AND newest.description = tmp_event.error_message);
    END IF;
    IF EXISTS (SELECT 1 FROM tmp_event WHERE wave = in_wave AND COALESCE(usage_str, wallclock, maxvmem, cpu, io) IS NOT NULL) THEN
        UPDATE tmp_event
            STRAIGHT_JOIN job_instance FORCE INDEX (PRIMARY) ON job_instance.job_instance_id = tmp_event.job_instance_id
        SET job_instance.usage_str = COALESCE(tmp_event.usage_str, job_instance.usage_str),
            job_instance.wallclock = COALESCE(tmp_event.wallclock, job_instance.wallclock),
            job_instance.maxvmem = COALESCE(tmp_event.maxvmem, job_instance.maxvmem),
            job_instance.cpu = COALESCE(tmp_event.cpu, job_instance.cpu),
            job_instance.io = COALESCE(tmp_event.io, job_instance.io)
        WHERE tmp_event.wave = in_wave AND ((in_position IS NULL AND tmp_event.plain) OR tmp_event.position = in_position);
    END IF;
END
