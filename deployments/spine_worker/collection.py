"""What Prefect loads as the worker of type `spine`: the worker of Spine, or Prefect's own where that cannot work."""

from spine_worker.interrupts import obey_interrupts
from spine_worker.prefect_names import missing_names


def load_worker() -> None:
    """Define the class of the worker, which registers it with Prefect."""
    obey_interrupts()
    missing = missing_names()
    if not missing:
        try:
            import spine_worker.worker  # noqa: F401

            return
        except Exception as error:  # Whatever Prefect has changed, runs must go on.
            missing = [f"{type(error).__name__}: {error}"]
    from spine_worker.plain import register_plain_worker

    register_plain_worker(missing)


load_worker()
