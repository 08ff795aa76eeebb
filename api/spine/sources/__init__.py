"""Sources: where data comes from, every fetch of it, and what is kept of it."""
