"""Getting calls out: packed, paced, retried in one layer, and never paid twice."""
