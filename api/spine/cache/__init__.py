"""The content-addressed cache: fetched content, stored once under its SHA-256, and the leases on it."""
