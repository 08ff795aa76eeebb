"""Spine's own database: engine, sessions, base class of the tables, migrations."""
