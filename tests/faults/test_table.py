"""The table of faults in the README has every fault."""

from tests.faults.faults import FAULTS
from tests.faults.table import BEGIN, COLUMNS, END, README


def test_the_readme_has_a_row_for_each_fault() -> None:
    table = README.read_text().partition(BEGIN)[2].partition(END)[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table if line.startswith("|")]
    assert cells[0] == list(COLUMNS)
    assert {row[0] for row in cells[2:]} == {fault.title for fault in FAULTS.values()}
