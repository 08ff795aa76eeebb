"""Authentication: API keys with names and scopes, and JWT bearer tokens."""
