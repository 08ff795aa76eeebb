import io

import pytest
from spine.up.console import Console
from spine.up.waiting import UpError


def test_without_a_terminal_a_step_is_one_plain_line_with_its_time() -> None:
    out = io.StringIO()
    with Console(out).step("Database") as step:
        step.detail = "spine.db"
    assert out.getvalue() == "✓ Database               0.0 s   spine.db\n"


def test_a_step_that_fails_is_marked_and_the_error_goes_on() -> None:
    out = io.StringIO()
    with pytest.raises(UpError), Console(out).step("Database"):
        raise UpError("no")
    assert out.getvalue() == "✗ Database               0.0 s\n"


def test_a_step_that_had_nothing_to_do_can_stay_silent() -> None:
    out = io.StringIO()
    with Console(out).step("Interrupted runs", if_detail=True):
        pass
    assert out.getvalue() == ""


def test_an_output_that_cannot_show_a_tick_gets_a_question_mark() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    with Console(out).step("Database"):
        pass
    assert raw.getvalue().startswith(b"? Database")
