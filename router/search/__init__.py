"""Vectors of collections: the index in memory that searches go to, and the files that they are exported to.

Which chunks have a vector is in `vectors`."""
