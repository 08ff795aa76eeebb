"""Prefect's server as Spine starts it: `python -m spine.prefect_server` takes the options of `prefect server start`."""
