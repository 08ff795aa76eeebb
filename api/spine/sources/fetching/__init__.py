"""Fetching a source: reading, hashing and parsing its content, and keeping it in the cache."""
