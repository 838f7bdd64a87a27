"""docs/reference/compatibility.md lists exactly the cells that exist, and was written from what is tested now."""

import re

import pytest
from cells import FILES, HERE, PAGE, outcomes, page, pinned, sections


@pytest.fixture(scope="module")
def known():
    return sections()


def test_every_file_of_the_matrix_is_a_section(known):
    assert {f"test_matrix_{name}.py" for name in FILES} == {path.name for path in HERE.glob("test_matrix_*.py")}
    assert len(known) == len(FILES) and all(section.cells for section in known)


def test_a_cell_is_one_test_or_several_of_one_row(known):
    """A row is asserted in one docstring; a test without one would be an empty promise."""
    for section in known:
        assert all(section.rows.values()), [row for row, says in section.rows.items() if not says]


def test_the_page_lists_exactly_the_cells_that_exist(known):
    assert set(outcomes()["cells"]) == {cell.key for section in known for cell in section.cells}, "make compatibility"


def test_the_page_is_made_of_the_tests_and_their_outcomes(known):
    assert PAGE.read_text(encoding="utf-8") == page(known, outcomes()), (
        "docs/reference/compatibility.md is stale: make compatibility"
    )


def test_nothing_on_the_page_failed():
    states = {state for state, _ in outcomes()["cells"].values()}
    assert states <= {"yes", "not run here", "not in diffusers", "not yet"}
    for key, (state, reason) in outcomes()["cells"].items():
        assert state == "yes" or reason, key
        assert state != "not run here" or re.match("needs ", reason), (key, reason)


def test_the_page_was_written_with_the_versions_that_are_pinned():
    versions, pins = outcomes()["versions"], pinned()
    for name in ("torch", "diffusers", "transformers", "peft"):
        assert versions[name].split("+")[0] == pins[name], f"{name}: make compatibility"
