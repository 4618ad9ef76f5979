CREATE PROCEDURE apply_events(
    in_wave INT UNSIGNED
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: The part of log_events that applies one wave of tmp_event: at most one event of each instance. Events that are
  sure to be accepted are applied in one statement; the others one by one, so that each is refused by itself, in the
  words of the rule that refuses it.
Access: internal
Parameters:
  in_wave: the wave
Example: CALL apply_events(1);
'
BEGIN
    DECLARE v_position, v_errno INT UNSIGNED;
    DECLARE v_together BOOLEAN DEFAULT TRUE;
    DECLARE v_message VARCHAR(512);
    UPDATE tmp_event
        STRAIGHT_JOIN job_instance FORCE INDEX (PRIMARY) ON job_instance.job_instance_id = tmp_event.job_instance_id
        STRAIGHT_JOIN job FORCE INDEX (PRIMARY) ON job.job_id = job_instance.job_id
        LEFT JOIN job_instance_transition ON job_instance_transition.from_status = job_instance.status
            AND job_instance_transition.to_status = tmp_event.to_status
    SET tmp_event.plain = CASE tmp_event.event
        WHEN 'usage' THEN TRUE
        WHEN 'nodename' THEN TRUE
        WHEN 'heartbeat' THEN job_instance.ended_date IS NULL
        WHEN 'warning' THEN job_instance.ended_date IS NULL
        WHEN 'executor_name' THEN job_instance.ended_date IS NULL
        WHEN 'executor_id' THEN job.status <> 'G' AND job_instance.attempt_number = job.attempts_before_reset + job.num_attempts
        ELSE tmp_event.to_status = job_instance.status OR job_instance_transition.to_status IS NOT NULL END
    WHERE tmp_event.wave = in_wave AND tmp_event.errno IS NULL;
    BEGIN
        -- not even this may spoil all: what a rule refuses after all is looked at one by one
        DECLARE CONTINUE HANDLER FOR SQLSTATE '45000' SET v_together = FALSE;
        CALL apply_plain_events(in_wave, NULL);
    END;
    IF NOT v_together THEN
        UPDATE tmp_event SET plain = FALSE WHERE wave = in_wave;
    END IF;
    REPEAT
        SET v_position = NULL, v_errno = NULL, v_message = NULL;
        SELECT MIN(position) INTO v_position FROM tmp_event WHERE wave = in_wave AND NOT plain AND errno IS NULL;
        IF v_position IS NOT NULL THEN
            BEGIN
                -- only what our rules raise: a deadlock or a time-out must end the whole call
                DECLARE CONTINUE HANDLER FOR SQLSTATE '45000'
                BEGIN
                    GET DIAGNOSTICS CONDITION 1 v_errno = MYSQL_ERRNO, v_message = MESSAGE_TEXT;
                    -- a session with max_error_count = 0 keeps no diagnostics
                    SET v_errno = COALESCE(v_errno, 0);
                END;
                CALL apply_plain_events(in_wave, v_position);
            END;
            UPDATE tmp_event SET plain = v_errno IS NULL, errno = v_errno, message = v_message WHERE position = v_position;
        END IF;
    UNTIL v_position IS NULL END REPEAT;
END
