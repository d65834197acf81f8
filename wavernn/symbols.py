"""The alphabet of an acoustic model: phones, breaks and pauses as numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from wavernn.errors import TextError
from wavernn.text import PAUSES, WORD_BREAK

# stands before every text, for the silence that a recording may begin with
START = "^"
STRESSES = ("", "ˈ", "ˌ")


class Alphabet:
    """Symbols by number; a phone's stress counts apart."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = tuple(symbols)
        self._number = {symbol: number for number, symbol in enumerate(self.symbols)}

    @classmethod
    def of(cls, phones: Iterable[str]) -> Alphabet:
        """The alphabet that holds these phones, given with or without stress."""
        plain = sorted({split(phone)[0] for phone in phones} - {WORD_BREAK, *PAUSES})
        return cls([START, WORD_BREAK, *PAUSES, *plain])

    def encode(self, tokens: Sequence[str]) -> np.ndarray:
        """Numbers START and the tokens of a clause: int64 [J, 2] of symbol and stress.

        Raises TextError for a phone that the model doesn't know.
        """
        rows = [(0, 0)]
        for token in tokens:
            symbol, stress = split(token)
            if symbol not in self._number:
                raise TextError(
                    f"expected phones that the voice was trained with, got {symbol!r}; spell the "
                    "word otherwise"
                )
            rows.append((self._number[symbol], stress))
        return np.array(rows, np.int64)


def split(token: str) -> tuple[str, int]:
    """Parts a token into its symbol and the index of its stress in STRESSES."""
    stress = STRESSES.index(token[0]) if token[0] in STRESSES[1:] else 0
    return token[1 if stress else 0 :], stress
