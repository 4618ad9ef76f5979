-- What several database servers need to agree on.

-- Galera decides by the rows that two transactions write, not by those they lock: so there, writers of the history count in a
-- row of their shard as well, and claims from a dag with a limit in that of the dag.
CREATE TABLE change_shard_count (
    change_shard TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    num_changes BIGINT UNSIGNED NOT NULL DEFAULT 0
) ENGINE = InnoDB COMMENT = 'Filled by `jobmon db migrate` on Galera only: transactions of different nodes on one shard conflict here';

ALTER TABLE change_shard ADD COLUMN is_counted BOOLEAN NOT NULL DEFAULT FALSE
    COMMENT 'whether it has a row in change_shard_count, for writers to count in';

ALTER TABLE task_dag ADD COLUMN num_claims BIGINT UNSIGNED NOT NULL DEFAULT 0
    COMMENT 'claims under max_concurrently_running: two on different nodes of Galera conflict';

CREATE TABLE replication_heartbeat (
    replication_heartbeat_id TINYINT UNSIGNED NOT NULL PRIMARY KEY,
    heartbeat_date DATETIME(6) NOT NULL
) ENGINE = InnoDB COMMENT = 'One row: when JSM wrote it last, by the clock of the server that takes the writes. On a replica its age is the lag';

UPDATE schema_info SET schema_version = 7, compatible_since = 3;
