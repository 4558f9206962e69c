"""Documents to rows of exactly `seq_len` tokens: RoBERTa's FULL-SENTENCES (Liu et al. 2019, §4.2).

The stream is the documents joined with `</s>`; a row is `<s>`, the next seq_len − 2 tokens of the
stream, `</s>`. No padding: what doesn't fill a last row is left over, and counted. Pure numpy.
"""

import numpy as np

BOS, PAD, EOS, UNK = 0, 1, 2, 3  # RoBERTa's ids


def pack(
    documents: list[np.ndarray], seq_len: int, dtype: str = "uint16"
) -> tuple[np.ndarray, int]:
    """Rows [n, seq_len] of `dtype`, and the number of stream tokens left over (< seq_len − 2)."""
    body = seq_len - 2
    stream = np.full(sum(map(len, documents)) + max(len(documents) - 1, 0), EOS, dtype)
    start = 0
    for document in documents:
        stream[start : start + len(document)] = document
        start += len(document) + 1
    count = len(stream) // body
    rows = np.empty((count, seq_len), dtype)
    rows[:, 0] = BOS
    rows[:, 1:-1] = stream[: count * body].reshape(count, body)
    rows[:, -1] = EOS
    return rows, len(stream) - count * body
