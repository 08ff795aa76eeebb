"""A module of the project that a flow imports."""

VALUE = 1
