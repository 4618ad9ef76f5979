DELETE FROM api_error WHERE errno = 32049;
DROP TABLE pruned_dag;
UPDATE schema_info SET schema_version = 7, compatible_since = 3;
