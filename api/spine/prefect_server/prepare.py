"""`python -m spine.prefect_server.prepare`: prepares the database of several Prefect servers, once before they start.

It migrates the tables and registers the types of Prefect's blocks, and can be repeated. Servers that do either at the
same time on a new database disturb each other: one of them ends with a violated constraint. They are started with
PREFECT_SERVER_DATABASE_MIGRATE_ON_START=false and PREFECT_SERVER_REGISTER_BLOCKS_ON_START=false.
"""

import asyncio

from spine.imports import importing

with importing():
    from prefect.server.database import provide_database_interface
    from prefect.server.models.block_registration import run_block_auto_registration


async def prepare() -> None:
    """Migrate and register; raises the errors of the database."""
    database = provide_database_interface()
    await database.create_db()
    async with database.session_context() as session:
        await run_block_auto_registration(session=session)
    await (await database.engine()).dispose()


if __name__ == "__main__":
    asyncio.run(prepare())
    print("The database of Prefect's servers is ready.")
