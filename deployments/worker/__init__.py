"""The worker of type `spine`, which Prefect finds through its entry point for collections."""

from deployments.worker.worker import SpineWorker

__all__ = ["SpineWorker"]
