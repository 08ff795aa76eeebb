"""The content-addressed cache: what sources brought, kept once under its SHA-256, and who may still need it."""
