"""API keys in tests."""

from spine.auth.callers import Caller
from spine.auth.service import check_keys
from spine.errors import Unauthorized
from sqlalchemy.ext.asyncio import AsyncSession


async def check_key(session: AsyncSession, key: str) -> Caller:
    """The caller of one key. Raises `Unauthorized`."""
    (found,) = await check_keys(session, [key])
    if isinstance(found, Unauthorized):
        raise found
    return found
