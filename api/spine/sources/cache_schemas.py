"""What clients see of the cache."""

from datetime import datetime

from pydantic import BaseModel, Field


class CacheEntry(BaseModel):
    """The last good content of one key of a source; the id names this content, and never another."""

    id: str = Field(examples=["01JH2M4Y1Q7W3V5K8T9R6P0N2B"])
    source_id: str
    source_name: str
    cache_key: str = Field(description="Names the content within its source.", examples=["weekly/2025-12-15.csv"])
    content_hash: str = Field(description="SHA-256 of the content, in hexadecimal digits.")
    size_bytes: int
    cached_at: datetime
    expires_at: datetime | None = Field(description="When it grows stale; null when it does not by the clock.")
    fetch_id: str | None = Field(description="The fetch that brought it.")
    content_type: str | None = Field(examples=["text/csv"])
    encoding: str | None = Field(description="The charset that the source told.", examples=["utf-8"])


class CacheStats(BaseModel):
    """How much there is, and how often it saved a download."""

    total_entries: int
    total_bytes: int = Field(description="Equal content of several entries counts once.")
    hit_rate: float = Field(ge=0, le=1, description="The share of reads that needed no download; 0 before the first.")
    miss_rate: float = Field(ge=0, le=1, description="The share of reads that did; 0 before the first.")
    expired_entries: int
    by_source: dict[str, int] = Field(description="Entries by the name of their source.")
