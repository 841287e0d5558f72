"""Secure aggregation: an enclave sums updates that nobody else can read."""
