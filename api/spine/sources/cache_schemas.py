"""The models of `/api/v1/sources/cache`."""

from datetime import datetime

from pydantic import BaseModel, Field


class CacheEntry(BaseModel):
    """The last good content of one key of a source; changed content gets another id."""

    id: str = Field(examples=["01JH2M4Y1Q7W3V5K8T9R6P0N2B"])
    source_id: str
    source_name: str
    cache_key: str = Field(description="The name of the content within its source.", examples=["weekly/2025-12-15.csv"])
    content_hash: str = Field(description="SHA-256 of the content, in hexadecimal digits.")
    size_bytes: int
    cached_at: datetime
    expires_at: datetime | None = Field(description="When the content becomes stale; null if there is no time limit.")
    fetch_id: str | None = Field(description="The fetch that downloaded the content.")
    content_type: str | None = Field(examples=["text/csv"])
    encoding: str | None = Field(description="The charset that the source reported.", examples=["utf-8"])


class CacheStats(BaseModel):
    """The size of the cache, and how often it saved a download."""

    total_entries: int
    total_bytes: int = Field(description="Content that several entries share counts once.")
    hit_rate: float = Field(
        ge=0,
        le=1,
        description="Share of reads without a download; 0 before the first read, and for a limited key.",
    )
    miss_rate: float = Field(
        ge=0, le=1, description="Share of reads with a download; 0 before the first read, and for a limited key."
    )
    expired_entries: int
    by_source: dict[str, int] = Field(description="Number of entries for each source name.")
