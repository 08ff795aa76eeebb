"""Spine, a control plane for data pipelines on Prefect. The public API for flows is `__all__`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spine.flows.read_source import SourceContent, aread_source, read_source

__all__ = ["SourceContent", "aread_source", "read_source"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that `spine up` does not wait for pyarrow and Prefect."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from spine.flows import read_source

    return getattr(read_source, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
