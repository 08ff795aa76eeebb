"""The pages that people read: their links lead somewhere, and the README stays short."""

import re
from functools import cache
from pathlib import Path

import pytest

from tests.support.processes import PROJECT
from tests.support.project import committed_files

MOST_LINES_OF_THE_README = 140
PAGES = sorted(name for name in committed_files() if name.endswith(".md"))
_LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#]*)(?:#([^)]*))?\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def heading_ids(page: Path) -> set[str]:
    """The fragments that a page's headings give, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _CODE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def committed_places() -> set[Path]:
    """The files that are committed, and their folders."""
    committed = {(PROJECT / one).resolve() for one in committed_files()}
    return committed | {parent for one in committed for parent in one.parents}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_to_something_that_is_committed(name: str) -> None:
    page, places = PROJECT / name, committed_places()
    broken = []
    for target, fragment in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
        place = (page.parent / target).resolve() if target else page.resolve()
        if place not in places or (fragment and fragment not in heading_ids(place)):
            broken.append(f"{target}#{fragment}" if fragment else target)
    assert broken == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [PROJECT / "README.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page in reached:
            continue
        reached.add(page)
        for target, _ in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
            place = (page.parent / target).resolve()
            waiting += [place] if place.suffix == ".md" else sorted(place.glob("*.md")) if place.is_dir() else []
    assert {PROJECT / name for name in PAGES} - reached == set()


def test_the_readme_stays_short() -> None:
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= MOST_LINES_OF_THE_README


def test_decisions_are_numbered_and_have_their_three_parts() -> None:
    names = [Path(name) for name in PAGES if name.startswith("api/decisions/")]
    assert [int(name.name[:4]) for name in names] == list(range(1, len(names) + 1))
    for name in names:
        text = (PROJECT / name).read_text(encoding="utf-8")
        assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Cost"], name
        assert text.startswith(f"# {int(name.name[:4])}. ")
