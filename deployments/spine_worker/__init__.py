"""The worker of type `spine`.

Prefect finds `spine_worker.worker` through its entry point for collections. Nothing is imported here: the fork servers
import `spine_worker.forking` and nothing else.
"""
