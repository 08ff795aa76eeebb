import pytest
from pydantic import ValidationError
from spine.sources.parsers import ParserConfig, ParserType, parser_for

from tests.sources.parsers.support import Desk


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.csv", "csv"), ("A.PSV.GZ", "psv"), ("a.b/c.tsv.zst", "tsv"), ("x.json.bz2", "json"), ("x.ndjson", "jsonl"),
        ("x.xml.zip", "xml"), ("x.parquet", "parquet"),
    ],
)  # fmt: skip
def test_the_extension_before_a_compression_suffix_sets_the_format(name: str, kind: str) -> None:
    assert parser_for(name, None) == ParserType(kind)


@pytest.mark.parametrize("name", ["a.txt", "a.dat", "a", "csv", "a.zip", "a.gz", "a.csv.gz.gz", ""])
def test_other_names_set_no_format_and_a_configured_format_takes_precedence(name: str) -> None:
    assert parser_for(name, None) is None
    assert parser_for(name, "psv") is ParserType.PSV


@pytest.mark.parametrize(
    "config",
    [
        {"encoding": "none"}, {"encoding": "base64"}, {"encoding": "idna"}, {"encoding": "utf-8\0"},
        {"delimiter": ",,"},
        {"delimiter": "\n"}, {"delimiter": "\u00e4"}, {"delimiter": '"'}, {"skip_rows": -1},
        {"columns": {"a": "text"}},
        {"records_path": "a..b"}, {"max_bad_rows": -1}, {"max_expanded_bytes": 0}, {"header": True},
        {"has_header": "no"}, {"trim": "yes"}, {"archive_member": ""},
        {"max_bad_fraction": 1.01}, {"max_bad_fraction": -0.1}, {"max_bad_fraction": None}, {"max_bad_fraction": "0.5"},
        {"max_bad_fraction": True}, {"max_bad_fraction": float("nan")},
        {"skip_footer_rows": -1}, {"skip_footer_rows": 101}, {"skip_footer_rows": 1.5}, {"footer_count_field": 0},
        {"footer_count_field": "rows"}, {"footer_pattern": ""}, {"footer_pattern": "("}, {"footer_pattern": "(?=x)"},
        {"footer_pattern": "(a{1000}){1000}"}, {"footer_pattern": ".*"}, {"footer_pattern": "x" * 501},
        {"footer_pattern": "\ud800"},
        {"records_layout": "lists"}, {"names_path": "a"}, {"names_path": "a..b", "records_layout": "arrays"},
        {"flatten": "yes"}, {"key_column": ""}, {"row_tag": "a", "row_path": "r/a"}, {"row_path": "r//a"},
        {"row_path": "/"}, {"namespaces": {"a b": "u"}}, {"namespaces": {"a": ""}}, {"parent_attributes": [""]},
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_followed_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ParserConfig.model_validate(config)


def test_a_wrong_pattern_is_named_with_its_mistake() -> None:
    with pytest.raises(ValidationError, match="must be a regular expression as RE2 takes it: missing \\)"):
        ParserConfig(footer_pattern="(")
    with pytest.raises(ValidationError, match="would match every row"):
        ParserConfig(footer_pattern="x*")


def test_a_pattern_that_backtracks_elsewhere_needs_little_time(desk: Desk) -> None:
    content = b"a\n" + b"a" * 500_000 + b"\n1\n" + b"a" * 200_000 + b"!\n"
    assert desk.parse(content, "csv", footer_pattern="^(a+)+$").rows == 3


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "latin-1", "utf_16_le", "shift_jis", "utf-7", "cp037"])
def test_every_text_encoding_of_files_is_taken(encoding: str) -> None:
    assert ParserConfig(encoding=encoding).encoding == encoding
