"""The fork servers: processes that have imported Prefect and a flow, and fork a process for each run.

A worker starts one engine server for each working directory and environment, and has it fork a flow server for each
entrypoint, which forks the runs. Nothing here is imported by the worker except `messages` and `files`.
"""
