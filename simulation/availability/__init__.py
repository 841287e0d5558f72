"""Availability traces out of an app's session logs and criteria of participation."""
