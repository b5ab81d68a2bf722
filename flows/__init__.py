"""Flows: what a user starts, and the `wave` command."""
