"""The door to Prefect: the only package that imports Prefect's client.

`client` speaks to Prefect's API, `filters` builds what its list routes take, `results` reads persisted results,
`parameters` checks parameters against a flow's schema.
"""
