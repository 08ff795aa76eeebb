"""The states that Spine proposes to Prefect, made by Prefect's own functions, and Prefect's reasons for a rejection."""

from typing import Any

from prefect.states import AwaitingRetry, Cancelled, Cancelling, Crashed, Failed

from spine.prefect.client import FlowRun, OrchestrationResult

# The name of the state of a run whose children a retry has mixed up.
MIXED_UP = "ChildrenMixedUp"


def is_final(run: FlowRun) -> bool:
    """Whether a run has ended."""
    return run.state is not None and run.state.is_final()


def is_untouched(run: FlowRun) -> bool:
    """Whether a run is still as it was created: no worker has taken it."""
    return run.run_count == 0 and run.state is not None and run.state.is_scheduled()


def rejection_of(result: OrchestrationResult[Any]) -> str:
    """Prefect's reason for rejecting a proposed state."""
    return getattr(result.details, "reason", None) or "no reason given"


__all__ = [
    "MIXED_UP",
    "AwaitingRetry",
    "Cancelled",
    "Cancelling",
    "Crashed",
    "Failed",
    "is_final",
    "is_untouched",
    "rejection_of",
]
