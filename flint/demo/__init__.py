"""The demo: many devices, one job a strategy, compared with training in one place."""
