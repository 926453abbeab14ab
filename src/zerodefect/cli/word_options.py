"""Options about words on the pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from zerodefect.cli.options import Options, option
from zerodefect.cli.telling import say

if TYPE_CHECKING:
    from zerodefect.inspection.inspector import Inspector


@dataclass(frozen=True)
class WordOptions(Options, panel="Output"):
    """Which words are looked for in the pictures."""

    show_words: list[str] | None = option(
        None,
        "Words that the report shows on the pictures: scratch,label; repeatable.",
        metavar="WORD[,WORD]",
    )

    def checked(self, inspector: Inspector) -> list[str]:
        """The words, each once; of those that the model hardly knows it is said.

        Raises:
            ValueError: an empty word, or one that the text tower cannot read.
        """
        if not self.show_words:
            return []
        words = [word for entry in self.show_words for word in entry.split(",")]
        try:
            return inspector.asked_words(words, say)
        except ValueError as error:
            raise ValueError(f"--show-words {','.join(self.show_words)}: {error}") from None
