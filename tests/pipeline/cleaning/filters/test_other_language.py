import pytest

from pipeline.cleaning.filters.other_language import Filter, language


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The committee has not yet decided on the question.", "en"),
        ("Le comité n'a pas encore\nstatué sur la question.", "fr"),
        ("Комитет ещё не решил этот вопрос.", "ru"),
    ],
)
def test_languages(text: str, code: str) -> None:
    found, score = language(text)
    assert found == code
    assert score > 0.5


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *(("Latin", "en"), ("Cyrillic", "ru"), ("Devanagari", "hi"), ("Han", "zh")),
        *(("Kana", "ja"), ("Thai", "th"), ("Arabic", "ar"), ("Tamil", "ta"), ("Burmese", "my")),
    ],
)
def test_in_every_script(name: str, code: str, prose: dict[str, str]) -> None:
    assert not Filter(languages=[code], min_language_score=0.5).drops(prose[name])
    assert Filter(languages=["de", "ko"], min_language_score=0.5).drops(prose[name])
