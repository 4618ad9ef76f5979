-- Description: One row: whether a health monitor watches, and how many things need somebody's attention. A lease is
--   counted as lost when nobody has ended its job instance a minute after it.
-- Access: JQS
-- Example: SELECT * FROM monitor_state;
CREATE VIEW monitor_state AS
SELECT monitor_watch.seconds_since_check, monitor_watch.max_pause_seconds, COALESCE(monitor_watch.watched_seconds, 0) AS watched_seconds,
    (SELECT COUNT(*) FROM notification WHERE sent_date IS NULL) AS num_pending_notifications,
    (SELECT GREATEST(COALESCE(TIMESTAMPDIFF(SECOND, MIN(created_date), UTC_TIMESTAMP(6)), 0), 0) FROM notification WHERE sent_date IS NULL) AS oldest_pending_seconds,
    (SELECT COUNT(*) FROM notification WHERE sent_date IS NULL AND error_message IS NOT NULL) AS num_refused_notifications,
    (SELECT COUNT(*) FROM failing_node) AS num_failing_nodes,
    (SELECT COUNT(*) FROM audit_state) AS num_audits,
    (SELECT COUNT(*) FROM audit_state WHERE violated_since IS NOT NULL) AS num_violated_audits,
    (SELECT COUNT(*) FROM job_instance WHERE report_by_date < UTC_TIMESTAMP(6) - INTERVAL 1 MINUTE) AS num_lost_leases,
    (SELECT COUNT(*) FROM workflow_run WHERE status = 'R') AS num_live_workflow_runs
FROM (SELECT 1 AS one) AS always LEFT JOIN monitor_watch ON always.one = 1
