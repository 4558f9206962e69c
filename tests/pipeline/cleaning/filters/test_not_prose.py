import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cleaning.filters.not_prose import Filter, letters


@settings(deadline=None)
@given(st.text())
def test_letters_and_marks_are_counted_as_python_has_them(text: str) -> None:
    def is_letter(character: str) -> bool:
        selects = "VARIATION SELECTOR" in unicodedata.name(character, "")
        return unicodedata.category(character)[0] in "LM" and not selects

    assert letters(text) == sum(map(is_letter, text))


@pytest.mark.parametrize(
    "name", ["Latin", "Cyrillic", "Devanagari", "Tamil", "Burmese", "Han", "Kana", "Thai", "Arabic"]
)
def test_prose_is_kept_and_pages_of_digits_go_in_every_script(
    name: str, prose: dict[str, str]
) -> None:
    assert not Filter(min_alphabetic=0.6).drops(prose[name])
    digits = {"Devanagari": "१२३४", "Burmese": "၁၂၃၄", "Thai": "๑๒๓๔", "Arabic": "١٢٣٤"}
    table = " | ".join([digits.get(name, "1234")] * 40)
    assert Filter(min_alphabetic=0.6).drops(prose[name][:20] + table)
