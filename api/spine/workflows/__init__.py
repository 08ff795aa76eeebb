"""Workflows are Prefect flows; their runs are Prefect flow runs. Nothing of either is stored here."""
