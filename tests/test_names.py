import pytest
from prefect.types.names import BANNED_CHARACTERS
from spine.errors import BadRequest
from spine.names import BANNED_IN_NAMES, check_name


def test_every_character_that_prefect_bans_in_names_is_banned() -> None:
    assert set(BANNED_IN_NAMES) == set(BANNED_CHARACTERS)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a/b", "contains '/'"),
        ("a?b", "contains '?'"),
        (" a", "begins or ends with a space"),
        ("a\x00", "cannot be printed"),
        ("cache", "is reserved"),
        ("..", "is reserved"),
        ("01j00000000000000000000001", "looks like an id"),
    ],
)
def test_a_name_that_a_path_cannot_carry_is_refused(name: str, problem: str) -> None:
    with pytest.raises(BadRequest, match=problem.replace("?", r"\?").replace(".", r"\.")):
        check_name(name)


def test_an_ordinary_name_passes() -> None:
    check_name("FINRA weekly, tier 1")
