"""Vocabularies from data: counted, cut to size, compared with hashing."""
