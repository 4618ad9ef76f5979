-- Pruning: which dags are being deleted. Whatever would start or change one of them is refused by this mark, so a
-- deletion that takes many small transactions is never met half-way by a resume.

CREATE TABLE pruned_dag (
    dag_id BIGINT UNSIGNED NOT NULL PRIMARY KEY,
    pruned_date DATETIME(6) NOT NULL DEFAULT (UTC_TIMESTAMP(6)) COMMENT 'since when nothing of it can be started or changed',
    archived_date DATETIME(6) NULL COMMENT 'since when all of its rows are in a file',
    next_job_id BIGINT UNSIGNED NULL COMMENT 'jobs with this id or a larger one are gone: spares each batch the look at what was deleted',
    FOREIGN KEY (dag_id) REFERENCES task_dag (dag_id)
) ENGINE = InnoDB COMMENT = 'Dags that are being deleted; the row goes with the dag';

INSERT INTO api_error (errno, name, http_status, message, hint) VALUES
    (32049, 'DAG_PRUNED', 409, 'The dag is being pruned: nothing of it can be started, changed or added to.', 'Wait until it is gone; the same workflow is made anew then.');

UPDATE schema_info SET schema_version = 8, compatible_since = 3;
