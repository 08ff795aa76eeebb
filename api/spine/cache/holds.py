"""Holds: leases on content, so that nobody deletes what a fetch or a reader needs.

The order of things. The row of a blob is the lock of its content, and it is there for as long as the file may be:
`hold` makes it before anything is published, and `spine.cache.garbage_collection` deletes it only together with the
file. Who needs content (`hold`, `store_entries`) takes a lock that others of their kind can take, too; who removes it
takes it alone, looks for entries and holds under it, and deletes the file before its transaction ends. So on
PostgreSQL (READ COMMITTED, each statement sees what was committed before it) one of the two waits: either the remover
sees the new hold or entry and goes away, or the holder comes second, finds no row, makes a new one, and publishes its
content anew. On SQLite there is one writer at a time, and the first statement of each of these transactions is a
write, so that nothing is decided on what was read before. An entry is only written by who still has its hold
(`store_entries`), and removed in a transaction of its own before the blob is: a crash at any moment leaves at worst a
file that no entry names, or a blob's row without a file, never an entry without its content. What lapsed leases leave
behind is removed by `spine.cache.reconciling`.
"""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from spine.cache.statements import batches, upsert
from spine.tables.base import utc_now
from spine.tables.cache import CacheBlob, CacheHold


async def hold(session: AsyncSession, content_hash: str, holder: str, seconds: float) -> None:
    """Keep content from being deleted for so long; commit before publishing it or relying on it.

    On SQLite this is a write, and belongs before what is read in the same transaction.
    """
    await hold_all(session, [content_hash], holder, seconds)


async def hold_all(session: AsyncSession, content_hashes: Iterable[str], holder: str, seconds: float) -> None:
    """The same for many contents, whose rows are locked in the order in which everybody locks several of them."""
    until = utc_now() + timedelta(seconds=seconds)
    for some in batches(sorted(set(content_hashes))):
        await _lock(session, some)
        rows = [{"content_hash": each, "holder": holder, "until": until} for each in some]
        holding = upsert(session, CacheHold).values(rows)
        key = ["content_hash", "holder"]
        await session.execute(holding.on_conflict_do_update(index_elements=key, set_={"until": until}))


async def _lock(session: AsyncSession, content_hashes: Sequence[str]) -> None:
    """Lock contents together with others who need them, each in a row that is made where there is none."""
    mine = select(CacheBlob.content_hash).where(CacheBlob.content_hash.in_(content_hashes))
    mine = mine.order_by(CacheBlob.content_hash).with_for_update(read=True, key_share=True)
    missing = list(content_hashes)
    # Again for rows that somebody has deleted between the two statements.
    while missing:
        making = upsert(session, CacheBlob).values([{"content_hash": each} for each in missing])
        await session.execute(making.on_conflict_do_nothing())
        locked = set((await session.scalars(mine)).all())
        missing = [each for each in content_hashes if each not in locked]


async def renew_holds(session: AsyncSession, holder: str, seconds: float) -> None:
    """Keep all that somebody holds for so long from now on."""
    until = utc_now() + timedelta(seconds=seconds)
    await session.execute(update(CacheHold).where(CacheHold.holder == holder).values(until=until))


async def release(session: AsyncSession, holder: str) -> None:
    """Let go of all that somebody holds; safe to repeat."""
    await session.execute(delete(CacheHold).where(CacheHold.holder == holder))
