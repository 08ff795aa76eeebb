"""The worker of type `spine`.

Prefect finds `spine_worker.collection` through the entry point for collections in `pyproject.toml`. Nothing is imported
here: the fork servers import `spine_worker.forking` and nothing else of this package.
"""
