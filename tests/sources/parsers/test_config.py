import pytest
from pydantic import ValidationError
from spine.sources.parsers import ParserConfig, ParserType, parser_for


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
        {"has_header": "no"},
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_followed_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ParserConfig.model_validate(config)


@pytest.mark.parametrize("encoding", ["utf-8", "UTF8", "latin-1", "utf_16_le", "shift_jis", "utf-7", "cp037"])
def test_every_text_encoding_of_files_is_taken(encoding: str) -> None:
    assert ParserConfig(encoding=encoding).encoding == encoding
