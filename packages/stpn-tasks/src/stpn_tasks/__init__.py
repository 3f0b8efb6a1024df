"""stpn_tasks."""
