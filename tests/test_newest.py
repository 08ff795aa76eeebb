"""The look at the newest versions: with a small project whose ranges exclude some."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests import newest
from tests.newest import failed_tests, opened, requirements_of
from tests.support.processes import PROJECT

# The range of `toolz` excludes its newest version, with which one test breaks; that of `six` does not.
PYPROJECT = """
[build-system]
requires = ["hatchling>=1.27,<2"]
build-backend = "hatchling.build"
[project]
name = "small"
version = "1.0"
dependencies = ["toolz>=0.11,<1", "six>=1.15"]
[dependency-groups]
test = ["pytest>=8"]
dev = [{ include-group = "test" }]
[tool.hatch.build.targets.wheel]
packages = ["small"]
"""
TESTS = """
import toolz


def test_that_breaks():
    assert toolz.__version__.startswith("0.")


def test_that_does_not():
    assert toolz.identity(1) == 1
"""
SUMMARY = """
FAILED tests/a.py::test_one[x - y] - AssertionError: no - yes
ERROR tests/b.py - ImportError: cannot import name
FAILED tests/c.py::TestIt::test_two
SKIPPED [1] tests/d.py:3: no browser
FAILED tests/c.py::TestIt::test_two
"""


def test_requirements_are_those_of_all_groups_without_repetition() -> None:
    names = [one.name for one in requirements_of(PROJECT)]
    assert {"prefect", "sqlalchemy", "pytest", "mypy"} <= set(names)
    assert len(set(map(str, requirements_of(PROJECT)))) == len(names)


@pytest.mark.parametrize(
    ("requirement", "without_bound"),
    [
        ("prefect>=3.8.8,<3.10", "prefect>=3.8.8"),
        ("psycopg[binary]>=3.2,<3.4,!=3.2.1", "psycopg[binary]!=3.2.1,>=3.2"),
        ("httpx~=0.28", "httpx"),
        ("types-psutil", "types-psutil"),
    ],
)
def test_an_opened_requirement_has_no_upper_bound(requirement: str, without_bound: str) -> None:
    assert opened(Requirement(requirement)) == without_bound


def test_what_failed_is_read_from_the_summary_of_pytest() -> None:
    assert failed_tests(SUMMARY) == ["tests/a.py::test_one[x - y]", "tests/b.py", "tests/c.py::TestIt::test_two"]


@pytest.mark.slow
def test_the_look_says_which_excluded_version_breaks_what(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "test_small.py").write_text(TESTS)
    assert newest.main(["-q"], tmp_path) == 1
    outside, everything, in_the_ranges, alone = re.split(r"\n(?! )", capfd.readouterr().out.strip())
    assert re.fullmatch(r"toolz 1\.\S+ is outside of <1,>=0\.11: tried 1\.\S+", outside)
    failed = "1 break:\n  test_small.py::test_that_breaks"
    assert everything == f"With everything newest {failed}"
    assert in_the_ranges == "With the newest versions in the ranges nothing breaks."
    assert alone == f"With only toolz outside of its range {failed}"
    assert newest.main(["-q", "-k", "not breaks"], tmp_path) == 0
