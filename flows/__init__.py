"""Prefect flows, one package per domain. Modules that several domains share are directly in this folder."""
