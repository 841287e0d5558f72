"""The device-facing feature service: manifests, features by key, and assets."""
