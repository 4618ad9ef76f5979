"""The health monitor: lost workflow runs and job instances, failing nodes, audits, notifications to Slack."""

from jobmon.monitor.monitor import HealthMonitor

__all__ = ["HealthMonitor"]
