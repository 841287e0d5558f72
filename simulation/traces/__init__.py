"""What the world of a dry-run is like: when devices are available, how fast they and links are."""
