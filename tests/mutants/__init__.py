"""Faults that are put into the code one by one: each must fail a test."""
