"""The only package that imports Prefect's client.

`client` calls Prefect's API, `filters` builds the filters of its list routes, `results` reads persisted results,
`parameters` checks parameters against a flow's schema.
"""
