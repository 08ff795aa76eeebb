"""Finds pages and other documents that a server has sent in place of data."""

import codecs
import json
import re

from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.sources.parsers.compression import File, Readable, content_of
from spine.sources.parsers.config import ParserConfig, ParserType
from spine.sources.parsers.error_documents import FOUND, is_error
from spine.sources.parsers.parse_errors import excerpt
from spine.sources.parsers.text import marked_encoding

HTML_TYPES = ("text/html", "application/xhtml+xml")
_LONGEST_HEAD = 64 * 1024
# What comes before the first element, by how it begins and ends.
_BEFORE_ELEMENTS = {"<!--": "-->", "<?": "?>"}
_SPACE = re.compile(r"\s*+")
_PAGE = re.compile(r"<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE)
# What a piece of a page begins with. XML can have elements of these names.
_PIECE = re.compile(
    r"<(?:head|body|title|meta|script|style|link|div|span|p|h[1-6]|table|form|iframe|center|font|br)[\s/>]",
    re.IGNORECASE,
)
_XML = re.compile(r"\s*+<(?:\?xml\s|!doctype\s|!--)", re.IGNORECASE)
_ELEMENT = re.compile(r"\s*+<([A-Za-z_][\w.:-]*+)[^<>]*+>")
# The beginning of an object, or of a list of objects or lists.
_JSON = re.compile(r'\s*+(?:\[\s*+)?(?:\{\s*+"[^"\\\n]*+(?:\\.[^"\\\n]*+)*"\s*+:|\[\s*+[\[{"])')


def check_document(file: File, kind: ParserType, config: ParserConfig) -> None:
    """Raise `FetchFailure` of category SOURCE for a page, an error, or XML or JSON in place of another format.

    Raises `ParseError` if the file cannot be decompressed.
    """
    with content_of(file) as content:
        head = _read(content, _LONGEST_HEAD)
    text = _decoded(head, config.encoding)
    found = _document(text, is_whole=len(head) < _LONGEST_HEAD, kind=kind, config=config)
    if found is not None:
        raise instead_of_data(file.name, found, kind)


def instead_of_data(name: str, found: str, kind: ParserType) -> FetchFailure:
    """The failure for a document of another kind than the expected one."""
    shown = excerpt(name.rpartition("/")[2], 80)
    sentence = f"{shown} is {found} and not {kind.value}; it may be a login page or an error in place of the data."
    return FetchFailure(ErrorCategory.SOURCE, sentence)


def is_empty(file: File) -> bool:
    """Whether a file has nothing but a byte-order mark and white space. Raises `ParseError`."""
    with content_of(file) as content:
        head = _read(content, _LONGEST_HEAD)
    _, rest = marked_encoding(head)
    return len(head) < _LONGEST_HEAD and not rest.strip(b" \t\r\n\0")


def _read(content: Readable, size: int) -> bytes:
    head = b""
    while len(head) < size and (more := content.read(size - len(head))):
        head += more
    return head


def _decoded(head: bytes, encoding: str) -> str:
    marked, rest = marked_encoding(head)
    try:
        # The last character may be cut.
        return codecs.getincrementaldecoder(marked or encoding)("replace").decode(rest)
    except UnicodeError:
        # Some encodings cannot replace; the parser says what is wrong.
        return ""


def _document(text: str, *, is_whole: bool, kind: ParserType, config: ParserConfig) -> str | None:
    """The kind of document that a text is, unless it is the expected one."""
    first = _first_element(text)
    if _PAGE.match(text, first) or (kind is not ParserType.XML and _PIECE.match(text, first)):
        return "an HTML document"
    if kind is not ParserType.XML and (_XML.match(text) or (is_whole and _is_element(text))):
        return "an XML document"
    if kind not in (ParserType.JSON, ParserType.JSONL) and _is_json(text, is_whole=is_whole, config=config):
        return "a JSON document"
    return FOUND if is_error(text, first, kind, config, is_whole=is_whole) else None


def _first_element(text: str) -> int:
    """Where the first element may begin: after space, comments and processing instructions."""
    at = 0
    while True:
        at = found.end() if (found := _SPACE.match(text, at)) else at
        begin = next((begin for begin in _BEFORE_ELEMENTS if text.startswith(begin, at)), "")
        end = _BEFORE_ELEMENTS.get(begin)
        if end is None or (closed := text.find(end, at + len(begin))) < 0:
            return at
        at = closed + len(end)


def _is_element(text: str) -> bool:
    start = _ELEMENT.match(text)
    return start is not None and text.rstrip().endswith((f"</{start[1]}>", "/>"))


def _is_json(text: str, *, is_whole: bool, config: ParserConfig) -> bool:
    if not is_whole:
        # Only a name of a column can begin like that, and none does.
        return config.has_header and config.skip_rows == 0 and _JSON.match(text) is not None
    # Either all of it, or each line.
    return _is_object_or_list(text) or _is_object_or_list(text.strip().partition("\n")[0])


def _is_object_or_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False
