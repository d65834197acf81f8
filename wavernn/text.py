"""Text to the phones and pauses of English, clause by clause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wavernn.english import phonemes
from wavernn.english.normalise import normalise
from wavernn.english.pauses import PAUSES, SENTENCE_ENDS, stronger
from wavernn.errors import TextError

__all__ = ["PAUSES", "WORD_BREAK", "Clause", "FrontEnd"]

# token between two words
WORD_BREAK = " "
# the most tokens of a clause that `clauses` gives
CLAUSE_TOKENS = 200
# the first sentence is spoken whole if it has no more words; else up to a pause that leaves so
# many words on either side, so that sound comes early
FIRST_WORDS = 12
FIRST_LEAST = 4
# a "sentence" without an end is looked at in pieces of so many words
SENTENCE_WORDS = 100


@dataclass(frozen=True)
class Clause:
    """What is spoken in one go.

    `text` is normalised: words in lower case and pause marks. `tokens` are phones, WORD_BREAK and
    pauses; they begin with a phone and end with one of PAUSES.
    """

    text: str
    tokens: tuple[str, ...]


@dataclass
class _Word:
    """A word, its phones, and the token after it."""

    text: str
    phones: list[str]
    after: str

    @property
    def tokens(self) -> int:
        return len(self.phones) + 1


class FrontEnd:
    """Reads text with a phonemizer, gruut or espeak; raises TextError where that can't run."""

    def __init__(self, phonemizer: str = "gruut") -> None:
        self.phonemizer = phonemes.load(phonemizer)

    def clause(self, text: str) -> Clause:
        """Reads the whole text as one clause, however long.

        Raises TextError if there's nothing to speak.
        """
        words = [word for sentence in self._sentences(text) for word in sentence]
        if not words:
            raise _nothing(text)
        return _joined(words)

    def clauses(self, text: str) -> Iterator[Clause]:
        """Reads sentence by sentence as asked for; a long one is cut, at pauses if it has any.

        The first clause is short. None has more than CLAUSE_TOKENS tokens. Their words are those
        of `clause`. Raises TextError before the first if there's nothing to speak.
        """
        first = True
        for words in self._sentences(text):
            for piece in _cut(words, first):
                yield _joined(piece)
            first = False
        if first:
            raise _nothing(text)

    def _sentences(self, text: str) -> Iterator[list[_Word]]:
        """The words of one sentence after the other, none of them empty."""
        for tokens in _grouped(normalise(text, self.phonemizer.knows)):
            sounds = self.phonemizer.phones(tokens)
            words: list[_Word] = []
            for token, phones in zip(tokens, sounds, strict=True):
                if token in PAUSES:
                    if words:
                        words[-1].after = stronger(words[-1].after, token)
                elif phones:
                    words.append(_Word(token, phones, WORD_BREAK))
            if words:
                yield words


def _grouped(tokens: Iterator[str]) -> Iterator[list[str]]:
    """Sentences of words and pauses; one that doesn't end is cut after SENTENCE_WORDS tokens."""
    sentence: list[str] = []
    for token in tokens:
        if len(sentence) >= SENTENCE_WORDS and token not in PAUSES:
            pauses = [place for place, held in enumerate(sentence, 1) if held in PAUSES]
            end = pauses[-1] if pauses else len(sentence)
            yield sentence[:end] if pauses else [*sentence, ","]
            sentence = sentence[end:]
        sentence.append(token)
        if token in SENTENCE_ENDS:
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def _cut(words: list[_Word], first: bool) -> Iterator[list[_Word]]:
    """Pieces of a sentence, of at most CLAUSE_TOKENS tokens each."""
    if first:
        end = _first_end(words)
        yield from _cut(words[:end], first=False)
        words = words[end:]
    while words:
        end = _last_end(words)
        if end < len(words) and words[end - 1].after == WORD_BREAK:
            words[end - 1].after = ","
        yield words[:end]
        words = words[end:]


def _first_end(words: list[_Word]) -> int:
    """How many words to speak first: all of a short sentence, or up to an early pause."""
    if len(words) <= FIRST_WORDS:
        return len(words)
    ends = range(FIRST_LEAST, len(words) - FIRST_LEAST + 1)
    return next((end for end in ends if words[end - 1].after != WORD_BREAK), len(words))


def _last_end(words: list[_Word]) -> int:
    """How many words fit into a clause: up to its last pause, if there's one, else all."""
    fitting = pause = tokens = 0
    for count, word in enumerate(words, 1):
        tokens += word.tokens
        if tokens > CLAUSE_TOKENS:
            return pause or fitting
        fitting = count
        if word.after != WORD_BREAK:
            pause = count
    return fitting


def _joined(words: list[_Word]) -> Clause:
    text, tokens = "", []
    for index, word in enumerate(words):
        after = word.after
        if index == len(words) - 1 and after == WORD_BREAK:
            after = "."
        text += word.text + (after if after == WORD_BREAK else after + " ")
        tokens += [*word.phones, after]
    return Clause(text.strip(), tuple(tokens))


def _nothing(text: str) -> TextError:
    shown = "".join(filter(str.isprintable, text)).strip()
    if not shown:
        return TextError("the text is empty; give some words to speak")
    shown = shown if len(shown) <= 40 else shown[:40] + "…"
    return TextError(f"nothing in {shown!r} can be spoken; give words or numbers in Latin letters")
