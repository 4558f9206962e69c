"""Texts of a few words: titles, captions, what a page without text says."""

from dataclasses import dataclass


@dataclass(kw_only=True)
class Filter:
    """Drops texts of fewer than `min_characters` characters."""

    min_characters: int

    def drops(self, text: str) -> bool:
        """Whether the text is shorter."""
        return len(text) < self.min_characters
