"""The topology of `deployments/`, without containers: the same processes, commands and settings."""
