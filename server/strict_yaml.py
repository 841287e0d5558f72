"""Strict YAML, which lives further left (`feature_catalog.strict_yaml`)."""

from feature_catalog.strict_yaml import StrictYamlError, load_mapping, read_text

__all__ = ["StrictYamlError", "load_mapping", "read_text"]
