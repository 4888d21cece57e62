"""Processes of a job, and arrays over their devices."""
