"""Keeps off what an operator has switched off, also when `prefect deploy` would resume it."""
