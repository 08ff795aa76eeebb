"""Whether runs may be waiting for the end of another run, so that the worker has to poll when one ends."""

from collections.abc import Sequence

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import WorkPool

# The most that Prefect returns at once.
_MOST_QUEUES = 200
_MOST_RUNS = 200


class WaitingRuns:
    """What a worker has learned of limits and of runs beyond them.

    A poll costs Prefect's server as much as a run's change of state and takes its write lock three times.
    """

    def __init__(self) -> None:
        self._is_queue_limited = True
        self._was_refused = False
        self._may_be_more = True

    async def read_queues(self, client: PrefectClient, pool: str) -> None:
        """Read which queues of the pool have a limit."""
        self._is_queue_limited = True
        queues = await client.read_work_queues(work_pool_name=pool, limit=_MOST_QUEUES)
        limited = [one for one in queues if one.concurrency_limit is not None]
        self._is_queue_limited = bool(limited) or len(queues) == _MOST_QUEUES

    def polled(self, runs: Sequence[object]) -> None:
        """A poll has returned these runs."""
        self._may_be_more = len(runs) >= _MOST_RUNS
        if not runs:
            self._was_refused = False

    def refused(self) -> None:
        """This worker could not claim a run, perhaps because of a deployment's limit."""
        self._was_refused = True

    def may_wait(self, pool: WorkPool | None, *, is_worker_limited: bool) -> bool:
        """Whether the end of a run may let another one start."""
        is_limited = is_worker_limited or pool is None or pool.concurrency_limit is not None
        return is_limited or self._is_queue_limited or self._was_refused or self._may_be_more
