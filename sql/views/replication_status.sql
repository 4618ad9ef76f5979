-- Description: How far the server that is asked is behind the one that takes the writes: the age of the newest heartbeat (one a
--   second) that has come here. No row: there is no binary log with GTIDs and no Galera, so no replica either, or JSM never ran.
-- Access: JQS
-- Example: SELECT lag_seconds FROM replication_status;
CREATE VIEW replication_status AS
SELECT heartbeat_date, GREATEST(TIMESTAMPDIFF(MICROSECOND, heartbeat_date, UTC_TIMESTAMP(6)), 0) / 1000000 AS lag_seconds
FROM replication_heartbeat
