"""Pages about when devices are available, and which."""
