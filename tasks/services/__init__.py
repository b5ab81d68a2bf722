"""Servers that a command starts for itself on loopback: a database, an object store, a cluster."""
