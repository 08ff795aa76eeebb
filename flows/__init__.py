"""Plain Prefect flows, one package per domain; what several of them share lies directly in this folder."""
