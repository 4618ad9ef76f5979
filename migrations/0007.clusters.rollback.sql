DROP TABLE replication_heartbeat;
ALTER TABLE task_dag DROP COLUMN num_claims;
ALTER TABLE change_shard DROP COLUMN is_counted;
DROP TABLE change_shard_count;
UPDATE schema_info SET schema_version = 6, compatible_since = 3;
