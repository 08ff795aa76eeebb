"""Workflows are Prefect flows and their runs are Prefect flow runs. Spine stores neither."""
