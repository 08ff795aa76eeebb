"""Registered database connections: stored without their secrets, tested with the real driver, read-only."""
