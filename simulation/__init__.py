"""Dry-runs: the coordinator of production on a virtual clock, in a world of measured devices."""
