"""The compiled event engine of dry-runs; equal to the plain event loop to the bit."""
