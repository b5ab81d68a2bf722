"""Flows: orchestration of the tasks, and the `wave` command."""
