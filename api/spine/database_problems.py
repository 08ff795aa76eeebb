"""Why a database does not work, in one sentence that an operator can act on.

PostgreSQL and SQLite report these states by codes and by texts of their own. What the sentences quote is a sentence of
the server, which contains names of databases and roles, never a password.
"""

import re

from sqlalchemy.exc import DBAPIError

# The reason that a server gives when it refuses a connection.
_REFUSAL = re.compile(r"FATAL:\s+(?P<reason>[^\n]+)")

# By SQLSTATE of PostgreSQL; the first two characters are its class.
_BY_CODE = {
    "25006": "Spine's database is read-only now, for example after a failover; SPINE_DATABASE_URL has to lead to the "
    "primary server.",
    "53100": "The disk of Spine's database is full.",
    "42501": "The role in SPINE_DATABASE_URL lacks a right on a table of Spine.",
    "42P01": "The tables in Spine's database are not those of this release; run `spine db upgrade`.",
    "42703": "The tables in Spine's database are not those of this release; run `spine db upgrade`.",
}

# By a part of the message of SQLite.
_BY_TEXT = {
    "readonly database": "Spine's database is read-only: its file or its folder cannot be written by this user.",
    "disk is full": "The disk of Spine's database is full.",
    "disk I/O error": "The disk of Spine's database reports errors.",
    "no such table": _BY_CODE["42P01"],
    "no such column": _BY_CODE["42P01"],
    "unable to open database file": "The file of Spine's database cannot be opened by this user.",
    "file is not a database": "The file of Spine's database is not a SQLite database.",
    "malformed": "The file of Spine's database is damaged; restore it from a backup.",
}


def state_of(error: DBAPIError) -> str | None:
    """The state of the database that this error reports, in one sentence; None if it reports something else."""
    driver = error.orig
    if sentence := _BY_CODE.get(str(getattr(driver, "sqlstate", None))):
        return sentence
    text = str(driver)
    if refused := _REFUSAL.search(text):
        reason = refused["reason"].strip().rstrip(".")
        return f"The server of Spine's database refuses the connection: {reason}."
    return next((sentence for part, sentence in _BY_TEXT.items() if part in text), None)
