"""Spine's REST API: a facade over Prefect, with tables of its own for what Prefect does not keep."""
