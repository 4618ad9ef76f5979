-- Description: An edge joins an earlier job to a later one of the same dag, which is still REGISTERED.
--   Ids that only rise along edges can't form a cycle, and they are the order in which jobs are locked.
CREATE TRIGGER job_edge_before_insert BEFORE INSERT ON job_edge FOR EACH ROW
BEGIN
    DECLARE v_text VARCHAR(127);
    DECLARE v_upstream_dag_id, v_downstream_dag_id BIGINT UNSIGNED;
    DECLARE v_upstream_status, v_downstream_status CHAR(1);
    IF NEW.upstream_job_id >= NEW.downstream_job_id THEN
        SET v_text = CONCAT('UPSTREAM_AFTER_DOWNSTREAM: job ', NEW.upstream_job_id, ' was not added before job ', NEW.downstream_job_id);
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32010, MESSAGE_TEXT = v_text;
    END IF;
    -- both exclusively, ids ascending, before the foreign keys would take shared locks
    SELECT status, dag_id INTO v_upstream_status, v_upstream_dag_id FROM job
    WHERE job_id = NEW.upstream_job_id FOR UPDATE;
    SELECT status, dag_id INTO v_downstream_status, v_downstream_dag_id FROM job
    WHERE job_id = NEW.downstream_job_id FOR UPDATE;
    IF v_upstream_status IS NULL OR v_downstream_status IS NULL THEN
        SET v_text = CONCAT('UNKNOWN_JOB: there is no job ', IF(v_upstream_status IS NULL, NEW.upstream_job_id, NEW.downstream_job_id));
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32021, MESSAGE_TEXT = v_text;
    END IF;
    IF NOT (v_upstream_dag_id <=> v_downstream_dag_id) THEN
        SET v_text = CONCAT('EDGE_ACROSS_DAGS: jobs ', NEW.upstream_job_id, ' and ', NEW.downstream_job_id, ' are of two dags');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32011, MESSAGE_TEXT = v_text;
    END IF;
    IF v_downstream_status <> 'G' THEN
        SET v_text = CONCAT('JOB_NOT_REGISTERED: job ', NEW.downstream_job_id, ' is ', v_downstream_status, ' and cannot get an upstream');
        SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 32039, MESSAGE_TEXT = v_text;
    END IF;
END
