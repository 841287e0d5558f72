"""Unmodified Flower apps on the virtual clock: a `Grid` whose replies arrive in virtual time."""
