"""Secure aggregation: the enclave behind the reference seam."""
