"""The fork servers: processes that have imported Prefect and a flow, and fork a process for each run.

A worker starts one engine server for each working directory and environment. The engine server forks a flow server for
each entrypoint, and the flow server forks the runs. Of this package the worker imports only `messages`, `files` and
`environment_block`.
"""
