"""Reports of dry-runs: one self-contained HTML page from the records of one or more runs."""
