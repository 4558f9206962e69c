import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Tokenizer as Settings
from pipeline.tokens.encoded import _encoded, copies_of, split_sentences
from pipeline.tokens.train import train_bpe, train_wordpiece
from pipeline.tokens.words import Words

TEXTS = [
    "Dr. Smith went to Washington. He arrived at 3 p.m. on Tuesday!\n\nA new paragraph. So?",
    "One sentence only, without an end",
    "Wait... what? Yes.  Two blanks.\nA line.\n\n\nThen more. «Oui.» Ok.",
] * 3
BPE = train_bpe(lambda: iter(TEXTS), Settings(vocab_size=400))
WORDPIECE = train_wordpiece(lambda: iter(TEXTS), Settings(vocab_size=300, kind="wordpiece"))


@given(st.lists(st.text(alphabet="aB .!?\n'é1", max_size=40), max_size=6))
def test_sentence_by_sentence_gives_the_tokens_of_the_whole(texts: list[str]) -> None:
    texts = [*texts, *TEXTS]
    for model in (BPE, WORDPIECE):
        whole = _encoded(texts, Words(model, "uint16"), False)
        parts = _encoded(texts, Words(model, "uint16"), True)
        for text, (ids, none), (same, starts) in zip(texts, whole, parts, strict=True):
            assert ids.tolist() == same.tolist(), text
            assert len(none) == 0
            assert len(starts) == len(ids)
            assert starts.sum() <= len(split_sentences(text))
            assert "".join(split_sentences(text)) == text
            assert not len(ids) or starts[0]


def test_marks_stand_where_sentences_begin() -> None:
    ((ids, starts),) = _encoded(TEXTS[:1], Words(BPE, "uint16"), True)
    pieces = [
        BPE.decode(part.tolist()).strip() for part in np.split(ids, np.flatnonzero(starts)[1:])
    ]
    assert [piece for piece in pieces if piece] == [
        "Dr. Smith went to Washington.",
        "He arrived at 3 p.m. on Tuesday!",
        "A new paragraph.",
        "So?",
    ]


def test_copies_are_the_weight_on_average() -> None:
    for weight in (1.0, 2.0, 2.3):
        copies = [copies_of(f"document {i}", weight) for i in range(5000)]
        assert abs(np.mean(copies) - weight) < 0.03
        assert set(copies) <= {int(weight), int(weight) + 1}
