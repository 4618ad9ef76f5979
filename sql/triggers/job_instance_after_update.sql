-- Description: The job instance state machine, for every writer; history; and the job in lock step with its newest job instance:
--   RUNNING and DONE take the job along; an error (E, W, Z, U) takes it to ERROR_RECOVERABLE and at once back to
--   QUEUED_FOR_INSTANTIATION, or to ERROR_FATAL when its attempts are used up. A job that becomes DONE queues the
--   downstream jobs that waited for it last.
CREATE TRIGGER job_instance_after_update AFTER UPDATE ON job_instance FOR EACH ROW
BEGIN
    DECLARE v_has_downstreams TINYINT UNSIGNED;
    DECLARE v_count BIGINT;
    IF NEW.status <> OLD.status THEN
        -- The log's foreign key lets only transitions in that are rows of job_instance_transition; a session may have
        -- switched foreign keys off.
        IF NOT @@SESSION.foreign_key_checks AND NOT EXISTS (
            SELECT 1 FROM job_instance_transition WHERE from_status = OLD.status AND to_status = NEW.status)
        THEN
            CALL refuse_transition(NEW.job_instance_id, NEW.job_id, NEW.attempt_number, OLD.status, NEW.status);
        END IF;
        BEGIN
            DECLARE EXIT HANDLER FOR 1452
                CALL refuse_transition(NEW.job_instance_id, NEW.job_id, NEW.attempt_number, OLD.status, NEW.status);
            INSERT INTO job_instance_status_log (job_instance_id, from_status, status, status_date)
            VALUES (NEW.job_instance_id, OLD.status, NEW.status, NEW.status_date);
        END;
        -- with the batch executor (B) the job stays INSTANTIATED
        IF NEW.status = 'R' THEN
            UPDATE job SET status = 'R' WHERE job_id = NEW.job_id;
        ELSEIF NEW.status = 'D' THEN
            SELECT has_downstreams INTO v_has_downstreams FROM job WHERE job_id = NEW.job_id FOR UPDATE;
            IF v_has_downstreams THEN
                -- the downstream jobs before their gates (lock order), ids ascending by job_edge's primary key
                SELECT COUNT(*) INTO v_count FROM job_edge FORCE INDEX (PRIMARY)
                    STRAIGHT_JOIN job FORCE INDEX (PRIMARY) ON job.job_id = job_edge.downstream_job_id
                WHERE job_edge.upstream_job_id = NEW.job_id FOR UPDATE;
            END IF;
            UPDATE job SET status = 'D' WHERE job_id = NEW.job_id;
            IF v_has_downstreams THEN
                UPDATE job_edge FORCE INDEX (PRIMARY)
                    STRAIGHT_JOIN job_gate FORCE INDEX (PRIMARY) ON job_gate.job_id = job_edge.downstream_job_id
                    STRAIGHT_JOIN job FORCE INDEX (PRIMARY) ON job.job_id = job_gate.job_id
                SET job.status = 'Q'
                WHERE job_edge.upstream_job_id = NEW.job_id AND job_gate.upstreams_pending = 0 AND job.status = 'G';
            END IF;
        ELSEIF NEW.status IN ('E', 'W', 'Z', 'U') THEN
            INSERT INTO job_instance_error_log (job_instance_id, error_time, description)
            VALUES (NEW.job_instance_id, NEW.status_date, NEW.error_message);
            -- a job in G was just reset, and the instance ends because of that
            IF (SELECT status FROM job WHERE job_id = NEW.job_id) <> 'G' THEN
                UPDATE job SET status = 'E' WHERE job_id = NEW.job_id;
                UPDATE job SET status = IF(num_attempts < max_attempts, 'Q', 'F') WHERE job_id = NEW.job_id;
            END IF;
        END IF;
    END IF;
END
