"""Spine's own flows, deployed by their module, and `read_source` for the flows of users."""
