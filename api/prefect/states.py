"""The states that Spine proposes to Prefect, made by Prefect's own functions."""

from prefect.states import AwaitingRetry, Cancelled, Cancelling, Failed

__all__ = ["AwaitingRetry", "Cancelled", "Cancelling", "Failed"]
