"""Sources: where data comes from, the fetches of it, and their content in the cache."""
