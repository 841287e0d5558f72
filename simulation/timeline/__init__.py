"""The compiled event engine of dry-runs that train nothing; equal to the plain loop to the bit."""
