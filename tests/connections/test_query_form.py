"""What the form of a query tells: whether it reads, and no more."""

import time

import pytest
from pydantic import ValidationError
from spine.sources.types.database import DatabaseConfig


def query_of(query: str) -> str:
    return DatabaseConfig.model_validate({"connection": "warehouse", "query": query}).query


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 INTO OUTFILE '/srv/x'",
        "SELECT 1 INTO/**/OUTFILE '/srv/x'",
        "SELECT 1 INTO /* a ' b */ dumpfile'/srv/x'",
        "SELECT 1 INTO -- to the server's disk\nOUTFILE '/srv/x'",
        "SELECT 1.5INTO OUTFILE '/srv/x'",
        "SELECT 1 /*!INTO*/ OUTFILE '/srv/x'",
        "SELECT 1 /*!50000 INTO OUTFILE '/srv/x' */",
        "SELECT 1 /*M!100100 INTO OUTFILE '/srv/x' */",
        "SELECT '/*', 1 INTO OUTFILE '/srv/x' -- */",
        "SELECT 1 INTO # a comment of MySQL\nOUTFILE '/srv/x'",
        "SELECT 1 # it's\nINTO OUTFILE '/srv/x'",
        "SELECT '\\'', 1 INTO OUTFILE '/srv/x'",
        'SELECT "\\"", 1 INTO OUTFILE "/srv/x"',
        "SELECT 1--1 INTO OUTFILE '/srv/x'",
        "SELECT 1 AS $$ INTO OUTFILE '/srv/$$'",
        "SELECT * FROM FINAL TABLE (DELETE FROM trades)",
        "SELECT * FROM FINAL/**/TABLE(DELETE FROM trades)",
        "SELECT * FROM old\ttable /* ' */ (DELETE FROM trades)",
        "SELECT /* /* */ ' */ 1 FROM NEW TABLE (INSERT INTO trades VALUES (1)) -- '",
        "SELECT 1 -- it's\rFROM NEW TABLE (INSERT INTO trades VALUES ('a'))",
        "WITH FUNCTION wipe RETURN NUMBER IS BEGIN DELETE FROM trades; RETURN 1; END; SELECT wipe FROM dual",
        "WITH/**/PROCEDURE wipe IS BEGIN NULL; END; SELECT 1 FROM dual",
        "SELECT q'[']' FROM (WITH FUNCTION wipe RETURN NUMBER IS BEGIN RETURN 1; END; SELECT 'a' FROM dual)",
    ],
)
def test_a_query_that_writes_in_any_database_is_refused(query: str) -> None:
    with pytest.raises(ValidationError, match=r"must not write|can write"):
        query_of(query)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 'into outfile' FROM t",
        "SELECT 'it''s into outfile' FROM t",
        'SELECT "final table (" FROM t',
        "SELECT `into outfile` FROM t",
        "SELECT 1 -- INTO OUTFILE '/srv/x'",
        "/* INTO OUTFILE */ SELECT 1",
        "SELECT '/*! is how it begins' FROM t",
        "SELECT /*+ INDEX(t) */ 1 FROM t",
        "SELECT E'it\\'s', a #> '{b}' FROM t --quickly",
        "SELECT '#1', name AS outfile FROM old, TABLE(prices(1))",
        "SELECT $$it's$$ FROM t",
        "-- first\n(SELECT 1) UNION (VALUES (2))",
        "WITH functions AS (SELECT 1) SELECT * FROM functions",
        "TABLE trades",
    ],
)
def test_a_query_that_reads_is_taken_as_it_is(query: str) -> None:
    assert query_of(f" {query} ; ") == query


@pytest.mark.parametrize(
    "query", ["DELETE FROM t", "/* SELECT */ DELETE FROM t", "'SELECT' 1", "SELECTED", "-- SELECT 1"]
)
def test_what_is_no_query_that_reads_is_refused(query: str) -> None:
    with pytest.raises(ValidationError, match="must be a single query that begins"):
        query_of(query)


@pytest.mark.parametrize(
    "part", ["/*", "'", "''\"", "`'", "new table ", "--", "/*/", "\\'", "q'", "with ", "((", "#\r"]
)
def test_a_long_query_is_judged_at_once(part: str) -> None:
    began = time.monotonic()
    for query in ("SELECT " + part * (99_000 // len(part)), part * (99_000 // len(part))):
        try:
            query_of(query)
        except ValidationError:
            continue
    assert time.monotonic() - began < 2
