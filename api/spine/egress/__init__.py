"""Requests to addresses that users name: which of them are allowed, and what was answered."""
