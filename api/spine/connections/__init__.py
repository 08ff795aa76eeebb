"""Registered database connections: kept without their secrets, tried with the real driver, read in read-only ways."""
