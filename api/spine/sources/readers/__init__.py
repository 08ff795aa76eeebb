"""Reading sources: one reader for each type, streaming, guarded, and within the limits of its source."""
