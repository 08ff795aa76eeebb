"""Which queries are refused because they could write although the transaction is read-only."""

import time

import pytest
from pydantic import ValidationError
from spine.connections.drivers.queries import check_query
from spine.sources.types.database import DatabaseConfig

TYPES = ("postgresql", "mysql", "sqlite", "oracle", "db2")


def config_of(query: str) -> DatabaseConfig:
    return DatabaseConfig.model_validate({"connection": "warehouse", "query": query})


WRITING = {
    "mysql": [
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
        "SELECT $$'$$ INTO OUTFILE '/srv/x'",
        "SELECT 1 --\u00a0 INTO OUTFILE '/srv/x'",
    ],
    "db2": [
        "SELECT * FROM FINAL TABLE (DELETE FROM trades)",
        "SELECT * FROM FINAL/**/TABLE(DELETE FROM trades)",
        "SELECT * FROM old\ttable /* ' */ (DELETE FROM trades)",
        "SELECT /* /* */ ' */ 1 FROM NEW TABLE (INSERT INTO trades VALUES (1)) -- '",
        "SELECT DB2MQ.MQSEND('x') FROM SYSIBM.SYSDUMMY1",
        "SELECT 1 -- it's\rFROM NEW TABLE (INSERT INTO trades VALUES ('a'))",
    ],
    "postgresql": [
        "SELECT lo_export(1, '/srv/x')",
        "SELECT \"lo_export\"(1, '/srv/x')",
        "SELECT 1 AS \"a'\", lo_export(1, '/srv/x') AS \"b'\"",
        "SELECT U&\"lo\\005fexport\"(1, '/srv/x')",
        "SELECT pg_catalog . PG_Reload_Conf ()",
        "SELECT E'\\'', lo_export(1, '/srv/x') --'",
        "SELECT $$'$$, lo_export(1, '/srv/x') --'",
        "SELECT /* /* */ ' */ lo_export(1, '/srv/x') --'",
        "SELECT 1 -- it's\r, lo_create(0)",
        "SELECT * FROM dblink('host=x', 'DELETE FROM t') AS t(a int)",
        "SELECT query_to_xml('SELECT pg_reload' || '_conf()', true, true, '')",
        "SELECT set_config('statement_timeout', '0', false)",
        "SELECT pg_logical_emit_message(false, 'a', 'b')",
        "SELECT pg_terminate_backend(1)",
    ],
    "oracle": [
        "SELECT UTL_HTTP.REQUEST('http://x') FROM dual",
        "SELECT \"UTL_HTTP\".REQUEST('http://x') FROM dual",
        "SELECT q'[']', sys.dbms_java.runjava('x') FROM dual --'",
        "WITH FUNCTION wipe RETURN NUMBER IS BEGIN DELETE FROM trades; RETURN 1; END; SELECT wipe FROM dual",
        "WITH/**/PROCEDURE wipe IS BEGIN NULL; END; SELECT 1 FROM dual",
        "SELECT q'[']' FROM (WITH FUNCTION wipe RETURN NUMBER IS BEGIN RETURN 1; END; SELECT 'a' FROM dual)",
    ],
}


@pytest.mark.parametrize(
    ("db_type", "query"), [(kind, query) for kind, queries in WRITING.items() for query in queries]
)
def test_a_query_that_writes_is_refused(db_type: str, query: str) -> None:
    with pytest.raises(ValueError, match=r"must not write|may write"):
        check_query(db_type, query)


@pytest.mark.parametrize("query", [query for queries in WRITING.values() for query in queries])
def test_sqlite_prevents_writes_itself(query: str) -> None:
    check_query("sqlite", query)


@pytest.mark.parametrize("query", [query for kind in ("mysql", "oracle", "db2") for query in WRITING[kind]])
def test_postgresql_prevents_the_writes_of_other_databases_itself(query: str) -> None:
    check_query("postgresql", query)


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
        "SELECT 'lo_export', lo_get(1), pg_size_pretty(1) -- lo_export(",
        "SELECT reset, config FROM pg_settings WHERE name <> E'it\\'s'",
    ],
)
def test_a_query_that_reads_is_accepted_unchanged(query: str) -> None:
    assert config_of(f" {query} ; ").query == query
    for db_type in TYPES:
        check_query(db_type, query)


@pytest.mark.parametrize(
    ("db_type", "query"),
    [
        ("oracle", "SELECT q'[into outfile]', '\\' AS a FROM new, dual -- final table (\n"),
        ("db2", "SELECT '\\' AS outfile FROM functions # with"),
        ("mysql", "SELECT lo_export(1), utl_http.request(1), dblink_exec(1)"),
        ("mysql", "SELECT 1 FROM new -- table\rfunction q'"),
    ],
)
def test_the_forms_of_other_databases_are_accepted(db_type: str, query: str) -> None:
    check_query(db_type, query)


@pytest.mark.parametrize(
    "query", ["DELETE FROM t", "/* SELECT */ DELETE FROM t", "'SELECT' 1", "SELECTED", "-- SELECT 1"]
)
def test_a_query_that_does_not_begin_like_a_select_is_refused(query: str) -> None:
    with pytest.raises(ValidationError, match="must be a single query that begins"):
        config_of(query)


@pytest.mark.parametrize(
    "part",
    ["/*", "'", "''\"", "`'", "new table ", "--", "/*/", "\\'", "q'", "with ", "((", "#\r", "$$", '"', "U&"],
)
def test_a_long_query_is_checked_quickly(part: str) -> None:
    began = time.monotonic()
    for query in ("SELECT " + part * (99_000 // len(part)), part * (99_000 // len(part))):
        try:
            config_of(query)
        except ValidationError:
            continue
    assert time.monotonic() - began < 2
