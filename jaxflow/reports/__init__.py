"""Costs of sampling, and pages about a run."""
