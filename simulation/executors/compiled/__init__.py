"""Local training compiled to machine code: one client after the other, its weights in cache."""
