"""The table of results: printed line by line, and kept in this folder's README.

A line replaces the one about the same thing; the others stay, so that a part can be measured alone.
"""

from pathlib import Path

README = Path(__file__).parent / "README.md"
HEADER = ("what", "Spine", "compared with", "that", "ratio", "aim")
_RULE = "|" + "---|" * len(HEADER)

Line = tuple[str, ...]

_measured: list[Line] = []


def line(what: str, ours: str, compared: str = "", that: str = "", ratio: str = "", aim: str = "") -> None:
    """Print one line of the table, and remember it for the README."""
    _measured.append((what, ours, compared, that, ratio, aim))
    print(_as_text(_measured[-1]), flush=True)


def print_header() -> None:
    """Print what the columns are."""
    print(f"{_as_text(HEADER)}\n{_RULE}", flush=True)


def write_to_readme(path: Path = README) -> None:
    """Put what was measured into the table of the README."""
    before, _, rest = path.read_text(encoding="utf-8").partition(f"{_as_text(HEADER)}\n{_RULE}\n")
    rows, after = _split(rest)
    table = merged(rows, _measured)
    text = "\n".join([_as_text(HEADER), _RULE, *map(_as_text, table)])
    path.write_text(f"{before}{text}\n{after}", encoding="utf-8")


def merged(known: list[Line], measured: list[Line]) -> list[Line]:
    """The known lines, each replaced by the measured one about the same thing, and then the new ones."""
    new = {_about(one): one for one in measured}
    kept = [new.pop(_about(one), one) for one in known]
    return kept + list(new.values())


def _about(one: Line) -> tuple[str, str]:
    return one[0], one[2]


def _as_text(one: Line) -> str:
    return "| " + " | ".join(one) + " |"


def _split(rest: str) -> tuple[list[Line], str]:
    """The lines of a table, and what comes after it."""
    lines = rest.split("\n")
    end = next((number for number, text in enumerate(lines) if not text.startswith("|")), len(lines))
    rows = [tuple(cell.strip() for cell in text.strip().strip("|").split("|")) for text in lines[:end]]
    return rows, "\n".join(lines[end:])
