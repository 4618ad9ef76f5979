DELETE FROM jqs_route;
DELETE FROM api_error;
UPDATE schema_info SET schema_version = 2, compatible_since = 2;
