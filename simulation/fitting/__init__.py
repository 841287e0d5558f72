"""Inputs of a dry-run made from what was measured: link speeds and the population of devices."""
