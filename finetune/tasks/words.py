"""Files of sentences whose words have a tag each: CoNLL, and JSON with a list of either.

CoNLL is one word a line, with a blank line after each sentence. What a line that begins with `#` is
depends on the file: with CoNLL-U's ids it is a comment. Else it may be the word `#`, which
real text has, and it is one wherever its tag is a tag.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from finetune.errors import FinetuneError
from finetune.tasks.readers import read_json, text_of, wrong_count
from finetune.text import read_lines

# Not all white space: a word may have a no-break space in it.
_BLANKS = re.compile(r"[ \t]+")


class Sentence(NamedTuple):
    """Its words, their tags, and where each stands ("line 3")."""

    words: list[str]
    tags: list[str]
    where: list[str]


def read_conll(
    path: Path, columns: tuple[str, ...], word: str, tag: str, known: Collection[str] = ()
) -> Iterator[Sentence]:
    """Yield every sentence. `known` are tags, besides those that the file has.

    Fields are divided by tabs in a file that has any, else by blanks. Comments, CoNLL-U's
    multiword and empty tokens (ids such as 1-2 and 1.1) and `-DOCSTART-` lines are no words.
    """
    lines = [line.strip(" \r\n") for line in read_lines(path)]
    split = _by_tabs if any("\t" in line for line in lines) else _BLANKS.split
    position = {name: index for index, name in enumerate(columns)}
    tags: set[str] = set()
    found = Sentence([], [], [])
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            if found.words:
                yield found
            found = Sentence([], [], [])
            continue
        if line.startswith("-DOCSTART-"):
            continue
        fields = split(line)
        if line.startswith("#") and ("id" in position or line.startswith("# ")):
            if "id" in position or split is _by_tabs or len(fields) != len(columns):
                continue
            tags = tags or _tags_of(map(split, lines), len(columns), position[tag]) | set(known)
            if fields[position[tag]] not in tags:
                raise FinetuneError(
                    f"{path}, line {number}: {line!r} is a comment, or else the word '#' with a "
                    f"{tag} that no other word has. Remove the comment, or separate by tabs."
                )
        if len(fields) != len(columns):
            raise wrong_count(path, number, len(fields), columns)
        if "id" in position and not fields[position["id"]].isdigit():
            continue
        if not fields[position[word]]:
            raise FinetuneError(f"{path}, line {number}: {word} is empty, expected a word.")
        found.words.append(fields[position[word]])
        found.tags.append(fields[position[tag]])
        found.where.append(f"line {number}")
    if found.words:
        yield found


def _by_tabs(line: str) -> list[str]:
    return line.split("\t")


def _tags_of(lines: Iterable[list[str]], count: int, position: int) -> set[str]:
    """The tags of all words but `#`, and the Penn Treebank's for that, which is `#`."""
    rows = (fields for fields in lines if len(fields) == count and fields[0] != "#")
    return {fields[position] for fields in rows} | {"#"}


def read_json_words(path: Path, word: str, tag: str) -> Iterator[Sentence]:
    """Yield a sentence for each record, from its list of words and its list of as many tags."""
    for where, record in read_json(path).rows:
        lists = [_strings(record.get(name), f"{path}, {where}: {name}") for name in (word, tag)]
        words, tags = lists
        if len(words) != len(tags):
            raise FinetuneError(
                f"{path}, {where}: found {len(words)} in {word} and {len(tags)} in {tag}, "
                "expected as many."
            )
        if words:
            yield Sentence(words, tags, [where] * len(words))


def _strings(found: object, name: str) -> list[str]:
    if not isinstance(found, list):
        raise FinetuneError(f"{name}: expected a list of strings, one a word.")
    try:
        texts = [text_of(value) for value in found]
    except ValueError as error:
        raise FinetuneError(f"{name}: {error}.") from None
    if "" in texts:
        raise FinetuneError(f"{name}, item {texts.index('') + 1}: found nothing in it.")
    return texts
