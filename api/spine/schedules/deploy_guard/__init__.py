"""Keeps disabled what an operator has disabled, even if `prefect deploy` would enable it again."""
