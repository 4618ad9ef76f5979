"""The health monitor's metrics, in Prometheus's format."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

LOOKS = Counter("jobmon_monitor_looks", "Looks for what is lost", ["outcome"])
EXAMINATIONS = Counter("jobmon_monitor_examinations", "Looks at nodes and audits", ["outcome"])
LAST_LOOK = Gauge("jobmon_monitor_last_look_timestamp_seconds", "When the last look was done, Unix time")
LOOK_SECONDS = Gauge("jobmon_monitor_look_duration_seconds", "How long the last look took, seconds")
WATCHED = Gauge("jobmon_monitor_watched_seconds", "For how long there was no pause in watching, seconds")
LOST_RUNS = Counter("jobmon_lost_workflow_runs", "Workflow runs that this monitor has taken for lost")
LOST_INSTANCES = Counter("jobmon_lost_job_instances", "Job instances that this monitor has ended as lost")
NOTIFICATIONS = Counter("jobmon_notifications", "Attempts to tell a notification", ["outcome"])
PENDING = Gauge("jobmon_notifications_pending", "Notifications that are not sent yet")
OLDEST = Gauge("jobmon_notifications_oldest_seconds", "Age of the oldest of them, seconds")
REFUSED = Gauge("jobmon_notifications_refused", "Pending notifications whose last attempt failed")
FAILING_NODES = Gauge("jobmon_failing_nodes", "Nodes that are failing")
VIOLATED_AUDITS = Gauge("jobmon_violated_audits", "Audit views that are not empty")
LOST_LEASES = Gauge("jobmon_lost_leases", "Job instances that nobody has ended a minute after their lease")

# Columns of the view monitor_state, and what shows them.
FROM_STATE = {
    "watched_seconds": WATCHED,
    "num_pending_notifications": PENDING,
    "oldest_pending_seconds": OLDEST,
    "num_refused_notifications": REFUSED,
    "num_failing_nodes": FAILING_NODES,
    "num_violated_audits": VIOLATED_AUDITS,
    "num_lost_leases": LOST_LEASES,
}
