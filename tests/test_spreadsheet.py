from hypothesis import example, given
from hypothesis import strategies as st

from anomalib_medclip.spreadsheet import original, shown


@given(st.text(alphabet="'=+-@\t\r1.eA ", max_size=8))
@example("-0.5")
@example("'=A1")
@example("-1+A1")
def test_no_text_is_a_formula_and_every_text_comes_back(text):
    cell = shown(text)
    assert original(cell) == text
    assert not cell.startswith(("=", "@", "\t", "\r"))
    assert not (cell.startswith(("+", "-")) and "A" in cell)
