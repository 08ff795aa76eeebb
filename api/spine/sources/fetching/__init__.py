"""Fetching a source: read, hashed, parsed, kept in the cache, and written down."""
