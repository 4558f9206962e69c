from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import NearDuplicates
from pipeline.sources.records import Document
from pipeline.split import document_hash

Drop = Callable[[list[list[Document]], NearDuplicates | None], dict[str, str]]


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=8), max_size=4))
def test_of_equal_texts_the_smallest_hash_stays(drop: Drop, texts: list[list[str]]) -> None:
    parts = [
        [Document(f"{i}-{j}", text, "s") for j, text in enumerate(part)]
        for i, part in enumerate(texts)
    ]
    stays: dict[str, str] = {}
    for document in (d for part in parts for d in part):
        rival = stays.setdefault(document.text, document.id)
        stays[document.text] = min(rival, document.id, key=document_hash)
    every = {d.id for part in parts for d in part}
    assert set(drop(parts, None)) == every - set(stays.values())
