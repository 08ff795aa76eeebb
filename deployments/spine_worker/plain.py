"""Prefect's process worker under the type `spine`, for versions of Prefect that Spine's worker does not know."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self

from prefect.client.schemas.objects import FlowRun
from prefect.workers.process import ProcessWorker, ProcessWorkerResult

from spine_worker.ambiguous_children import refuse_ambiguous_children
from spine_worker.fallback_notices import FallbackNotices
from spine_worker.silent_ends import crash_if_silent
from spine_worker.withheld import withholding


def register_plain_worker(missing: Sequence[str]) -> type[ProcessWorker]:
    """Define the worker of type `spine`, which registers it; `missing` are the names that Prefect does not have."""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    reason = f"this version of Prefect has changed {missing[0]}{more}"

    class PlainSpineWorker(ProcessWorker):
        """Starts each run in a new interpreter; it reports that it does."""

        type = "spine"
        _display_name = "Spine"
        _description = "Execute flow runs as subprocesses."
        _documentation_url = ""
        _logo_url = ""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._notices = FallbackNotices()
            self._withheld = ExitStack()

        async def __aenter__(self) -> Self:
            self._withheld.enter_context(withholding())
            try:
                await super().__aenter__()
            except BaseException:
                self._withheld.close()
                raise
            return self

        async def __aexit__(self, *exc_info: Any) -> None:
            try:
                await super().__aexit__(*exc_info)
            finally:
                self._withheld.close()

        async def run(self, flow_run: FlowRun, *args: Any, **kwargs: Any) -> ProcessWorkerResult:
            """As Prefect's, but not for a run that could mix up its children; the run does not outlive its process."""
            if flow_run.run_count:
                await refuse_ambiguous_children(self.client, flow_run)
            result = await super().run(flow_run, *args, **kwargs)
            await crash_if_silent(self.client, flow_run.id, result.identifier)
            return result

        async def sync_with_backend(self) -> None:
            """As Prefect's, with each heartbeat; report the reason, too."""
            await super().sync_with_backend()
            self._notices.report(self.name, self.work_pool.name, reason)

    return PlainSpineWorker
