"""What a fetch and a reader of current content ask of the cache, in the caller's transaction."""

from spine.cache.entries import NewEntry, content_hash_of, count_read, current_entries, store_entries, touch
from spine.cache.holds import hold, hold_all, release, renew_holds

__all__ = [
    "NewEntry",
    "content_hash_of",
    "count_read",
    "current_entries",
    "hold",
    "hold_all",
    "release",
    "renew_holds",
    "store_entries",
    "touch",
]
