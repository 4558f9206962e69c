from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from pipeline.dedup import PARTITIONS, duplicates, partition_records
from pipeline.sources import Document


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=8), max_size=5))
def test_the_smallest_id_of_equal_texts_stays(texts: list[list[str]]) -> None:
    chunks = [
        [Document(f"{(7 * i + j) % 5}-{i}-{j}", text, "s") for j, text in enumerate(chunk)]
        for i, chunk in enumerate(texts)
    ]
    partitions = defaultdict(list)
    for number, chunk in enumerate(chunks):
        for partition, records in partition_records(chunk).items():
            partitions[partition].append((number, records))
    assert all(len(partitions[p]) == len(chunks) for p in range(PARTITIONS) if chunks)
    dropped = {
        (number, ordinal)
        for group in partitions.values()
        for number, ordinals, _ in duplicates(reversed(group))
        for ordinal in ordinals
    }
    kept = {
        document.id
        for number, chunk in enumerate(chunks)
        for ordinal, document in enumerate(chunk)
        if (number, ordinal) not in dropped
    }
    smallest: dict[str, str] = {}
    for document in (d for chunk in chunks for d in chunk):
        smallest[document.text] = min(smallest.get(document.text, "~"), document.id)
    assert kept == set(smallest.values())
