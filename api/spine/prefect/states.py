"""The states that Spine proposes to Prefect, made by Prefect's own functions, and Prefect's reasons for a rejection."""

from typing import Any

from prefect.states import AwaitingRetry, Cancelled, Cancelling, Failed

from spine.prefect.client import FlowRun, OrchestrationResult


def is_final(run: FlowRun) -> bool:
    """Whether a run has ended."""
    return run.state is not None and run.state.is_final()


def rejection_of(result: OrchestrationResult[Any]) -> str:
    """Prefect's reason for rejecting a proposed state."""
    return getattr(result.details, "reason", None) or "no reason given"


__all__ = ["AwaitingRetry", "Cancelled", "Cancelling", "Failed", "is_final", "rejection_of"]
