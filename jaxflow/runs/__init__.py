"""Runs: networks, their roles, their first state and their data."""
