-- Description: The job state machine, for every writer.
--   A change of status must be a row of job_transition; I, R, D and E come from the newest job instance only;
--   Q needs all upstreams DONE and an attempt left; F needs the attempts used up; G (reset) starts the count anew.
--   A job that is tried again after a RESOURCE_ERROR gets more of what was exceeded, by its scale.
--   Nothing of a dag that is being pruned is queued or reset.
--   (It runs for every report, so one SELECT reads what most changes need.)
CREATE TRIGGER job_before_update BEFORE UPDATE ON job FOR EACH ROW
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_legal_status, v_instance_status CHAR(1);
    DECLARE v_exceeded VARCHAR(16);
    DECLARE v_pending INT UNSIGNED;
    DECLARE v_pruned_dag_id BIGINT UNSIGNED;
    IF NEW.job_id <> OLD.job_id OR NOT (NEW.dag_id <=> OLD.dag_id) OR NEW.job_hash <> OLD.job_hash
        OR NEW.created_date <> OLD.created_date
    THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32050,
            MESSAGE_TEXT = 'IMMUTABLE_COLUMN: job_id, dag_id, job_hash and created_date of a job are never changed';
    END IF;
    IF NEW.num_attempts <> OLD.num_attempts OR NEW.attempts_before_reset <> OLD.attempts_before_reset
        OR NEW.has_downstreams < OLD.has_downstreams
    THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32052,
            MESSAGE_TEXT = 'COUNTED_COLUMN: num_attempts, attempts_before_reset and has_downstreams are counted by triggers';
    END IF;
    IF NEW.mem_free_scale < 0 OR NEW.max_runtime_scale < 0 THEN
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32002,
            MESSAGE_TEXT = 'INVALID_PARAMETER: mem_free_scale and max_runtime_scale must be 0 or more';
    END IF;
    IF NEW.status = OLD.status THEN
        SET NEW.status_date = OLD.status_date;
    ELSE
        -- the errors of an instance are one to the job
        SELECT job_transition.to_status, IF(newest.status IN ('W', 'Z', 'U'), 'E', newest.status), newest.exceeded
        INTO v_legal_status, v_instance_status, v_exceeded
        FROM job_transition
            LEFT JOIN job_instance AS newest ON newest.job_id = OLD.job_id
                AND newest.attempt_number = OLD.attempts_before_reset + OLD.num_attempts + (NEW.status = 'I')
        WHERE job_transition.from_status = OLD.status AND job_transition.to_status = NEW.status;
        IF v_legal_status IS NULL THEN
            SET v_text = CONCAT('ILLEGAL_TRANSITION: job ', OLD.job_id, ' cannot go from ', OLD.status, ' to ', COALESCE(NEW.status, 'NULL'));
            SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32030, MESSAGE_TEXT = v_text;
        END IF;
        IF NEW.status IN ('Q', 'G') AND OLD.status <> 'E' THEN
            -- locking: this session's snapshot may be older than the mark; under this job's lock, which who marks a dag takes, too
            SELECT dag_id INTO v_pruned_dag_id FROM pruned_dag WHERE dag_id = OLD.dag_id LOCK IN SHARE MODE;
        END IF;
        IF v_pruned_dag_id IS NOT NULL THEN
            SET v_text = CONCAT('DAG_PRUNED: dag ', OLD.dag_id, ' is being pruned, and job ', OLD.job_id, ' with it');
            SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32049, MESSAGE_TEXT = v_text;
        END IF;
        -- the clock may have been set back
        SET NEW.status_date = GREATEST(OLD.status_date, UTC_TIMESTAMP(6));
        IF NEW.status IN ('I', 'R', 'D', 'E') THEN
            IF NOT (v_instance_status <=> NEW.status) THEN
                SET v_text = CONCAT('JOB_FOLLOWS_ITS_INSTANCE: job ', OLD.job_id, ' cannot go to ', NEW.status, ' by itself');
                SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32034, MESSAGE_TEXT = v_text;
            END IF;
            IF NEW.status = 'I' THEN
                SET NEW.num_attempts = OLD.num_attempts + 1;
            END IF;
        ELSEIF NEW.status = 'Q' THEN
            -- locking: this session's snapshot may be older than the last change of the gate
            SELECT upstreams_pending INTO v_pending FROM job_gate WHERE job_id = OLD.job_id LOCK IN SHARE MODE;
            IF v_pending > 0 THEN
                SET v_text = CONCAT('UPSTREAM_NOT_DONE: job ', OLD.job_id, ' waits for upstream jobs');
                SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32035, MESSAGE_TEXT = v_text;
            END IF;
            IF NEW.num_attempts >= NEW.max_attempts AND OLD.status <> 'G' THEN
                SET v_text = CONCAT('ATTEMPTS_EXHAUSTED: job ', OLD.job_id, ' has made ', NEW.num_attempts, ' of ', NEW.max_attempts, ' attempts');
                SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32036, MESSAGE_TEXT = v_text;
            END IF;
            -- not after a reset: then the newest instance is one of before; and never past what the column holds
            IF OLD.status <> 'G' AND v_exceeded = 'mem_free' THEN
                SET NEW.mem_free = LEAST(CEIL(NEW.mem_free * (1 + COALESCE(NEW.mem_free_scale, 0))), 4294967295);
            ELSEIF OLD.status <> 'G' AND v_exceeded = 'max_runtime' THEN
                SET NEW.max_runtime = LEAST(CEIL(NEW.max_runtime * (1 + COALESCE(NEW.max_runtime_scale, 0))), 4294967295);
            END IF;
        ELSEIF NEW.status = 'F' THEN
            IF NEW.num_attempts < NEW.max_attempts THEN
                SET v_text = CONCAT('ATTEMPTS_LEFT: job ', OLD.job_id, ' has made ', NEW.num_attempts, ' of ', NEW.max_attempts, ' attempts');
                SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32037, MESSAGE_TEXT = v_text;
            END IF;
        ELSE
            IF OLD.status = 'D' AND OLD.has_downstreams THEN
                -- locking: one may just be queued, or have been since this session's snapshot
                SELECT COUNT(*) INTO v_pending
                FROM job_edge FORCE INDEX (PRIMARY)
                    STRAIGHT_JOIN job AS downstream FORCE INDEX (PRIMARY) ON downstream.job_id = job_edge.downstream_job_id
                WHERE job_edge.upstream_job_id = OLD.job_id AND downstream.status <> 'G' LOCK IN SHARE MODE;
            END IF;
            IF v_pending > 0 THEN
                SET v_text = CONCAT('DOWNSTREAM_NOT_REGISTERED: a downstream of job ', OLD.job_id, ' is not in G');
                SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32038, MESSAGE_TEXT = v_text;
            END IF;
            SET NEW.attempts_before_reset = OLD.attempts_before_reset + OLD.num_attempts, NEW.num_attempts = 0;
        END IF;
    END IF;
END
