"""Vectors of collections: found, searched and exported."""
