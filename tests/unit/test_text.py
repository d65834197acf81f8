import socket
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavernn.english.phonemes import CONSONANTS, STRESS, VOWELS
from wavernn.errors import TextError
from wavernn.text import (
    CLAUSE_TOKENS,
    PAUSES,
    SENTENCE_WORDS,
    WORD_BREAK,
    FrontEnd,
)

FRONT = FrontEnd()
PHONES = {*CONSONANTS, *VOWELS, *(mark + vowel for mark in STRESS for vowel in VOWELS)}
FIFTEEN = "The quick brown fox jumps over the lazy dog near the old mill at dawn."


def words(clauses):
    text = " ".join(clause.text for clause in clauses)
    return "".join(c for c in text if c not in PAUSES).split()


def check(clause):
    tokens = clause.tokens
    assert tokens[0] in PHONES
    assert tokens[-1] in PAUSES
    breaks = {WORD_BREAK, *PAUSES}
    assert set(tokens) <= PHONES | breaks
    for one, other in pairwise(tokens):
        assert one not in breaks or other not in breaks
    assert sum(token in breaks for token in tokens) == len(words([clause]))
    assert clause.text[-1] in PAUSES
    assert clause.text == clause.text.lower()


def test_a_clause_is_words_phones_and_pauses():
    clause = FRONT.clause("Dr. Smith bought 2 books, didn't he?")
    assert clause.text == "doctor smith bought two books, didn't he?"
    said = "d ˈɑ k t ɚ | s m ˈɪ θ | b ˈɔ t | t ˈu | b ˈʊ k s , d ˈɪ d ə n t | h ˈi ?"
    assert clause.tokens == tuple(WORD_BREAK if t == "|" else t for t in said.split())


def test_a_clause_without_an_end_gets_a_full_stop():
    assert FRONT.clause("well").tokens == ("w", "ˈɛ", "l", ".")
    assert [clause.text for clause in FRONT.clauses("well")] == ["well."]


def test_a_dash_stands_between_its_words():
    assert FRONT.clause("yes — no").text == "yes— no."


def test_clause_leaves_a_text_whole():
    text = "One two three. Four five six! " * 50
    assert FRONT.clause(text).text == text.strip().lower()


def test_clauses_are_sentences():
    text = "First one. Is this the second? Yes! And the last"
    assert [clause.text for clause in FRONT.clauses(text)] == [
        "first one.",
        "is this the second?",
        "yes!",
        "and the last.",
    ]


def test_the_first_clause_ends_at_an_early_pause():
    text = "When it was all over, we went back to the house by the river; nobody spoke."
    first, second = FRONT.clauses(text)
    assert first.text == "when it was all over,"
    assert second.text == "we went back to the house by the river; nobody spoke."


def test_a_pause_may_come_too_early():
    first, *_ = FRONT.clauses("Well, when all of it was over, we went back to the house at last.")
    assert first.text == "well, when all of it was over,"


@pytest.mark.parametrize(
    "text", [FIFTEEN, "one two, three four, five six, seven eight, nine", FIFTEEN[:-1] + ", sir."]
)
def test_a_first_sentence_that_is_short_or_has_no_early_pause_stays_whole(text):
    assert len(list(FRONT.clauses(text))) == 1


def test_a_later_sentence_is_cut_only_if_it_is_long():
    later = "and when it was all over, " * 4 + "we went."
    assert [clause.text for clause in FRONT.clauses("Yes. " + later)] == ["yes.", later]


def test_a_long_sentence_is_cut_at_its_last_pauses():
    text = "Yes. " + "the lazy dog near the old mill, " * 30
    clauses = list(FRONT.clauses(text))[1:]
    assert len(clauses) > 1
    for clause in clauses:
        assert clause.text.endswith("the old mill,")
        assert CLAUSE_TOKENS / 2 < len(clause.tokens) <= CLAUSE_TOKENS or clause is clauses[-1]


def test_a_sentence_without_pauses_is_cut_between_words():
    text = " ".join(["lazy dogs ran"] * 400)
    clauses = list(FRONT.clauses(text))
    assert words(clauses) == text.split()
    assert all(clause.text.endswith(",") for clause in clauses[:-1])
    assert clauses[-1].text.endswith(".")
    assert max(len(clause.tokens) for clause in clauses) <= CLAUSE_TOKENS


def test_the_first_clause_comes_before_the_rest_is_read(monkeypatch):
    asked = []
    phones = FRONT.phonemizer.phones
    monkeypatch.setattr(
        FRONT.phonemizer, "phones", lambda words: asked.append(len(words)) or phones(words)
    )
    clauses = FRONT.clauses("One sentence. " * 1000)
    next(clauses)
    assert asked == [3]


def test_ten_thousand_characters_are_bounded_work(monkeypatch):
    asked = []
    phones = FRONT.phonemizer.phones
    monkeypatch.setattr(
        FRONT.phonemizer, "phones", lambda words: asked.append(len(words)) or phones(words)
    )
    text = ("word " * 2000)[:10_000]
    clauses = list(FRONT.clauses(text))
    # every word is looked at once, and few together
    assert sum(asked) <= 2000 + len(asked)
    assert max(asked) <= SENTENCE_WORDS + 1
    assert len(clauses) <= 2000 * 5 // (CLAUSE_TOKENS // 2)


@pytest.mark.parametrize("text", ["ab" * 5000, "1" * 10_000, "W" * 10_000, "a-" * 5000])
def test_a_word_without_end_is_spoken_in_pieces(text):
    clauses = list(FRONT.clauses(text))
    assert max(len(clause.tokens) for clause in clauses) <= CLAUSE_TOKENS
    for clause in clauses:
        check(clause)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the text is empty; give some words to speak"),
        (" \n\t", "the text is empty"),
        ("\x00\u200b", "the text is empty"),
        ("\ud800", "the text is empty"),
        ("😀", "nothing in '😀' can be spoken; give words or numbers in Latin letters"),
        ("Привет, мир", "nothing in 'Привет, мир' can be spoken"),
        ("?!" * 30, r"nothing in '(\?!){20}…' can be spoken"),
    ],
)
def test_nothing_to_speak_is_said(text, message):
    with pytest.raises(TextError, match=f"^{message}"):
        FRONT.clause(text)
    with pytest.raises(TextError, match=f"^{message}"):
        next(FRONT.clauses(text))


@given(st.text() | st.text("abc aeiou 0159.,;:!?—…'$%IVX-\n"))
def test_any_text_gives_clauses_or_an_error(text):
    try:
        whole = FRONT.clause(text)
    except TextError:
        with pytest.raises(TextError):
            next(FRONT.clauses(text))
        return
    clauses = list(FRONT.clauses(text))
    assert clauses == list(FRONT.clauses(text))
    assert words(clauses) == words([whole])
    for clause in clauses:
        check(clause)
        assert len(clause.tokens) <= CLAUSE_TOKENS
    check(whole)


PARTS = st.sampled_from(["a", "lazy,", "constitution", "dog;", "1234567", "end."])


@given(st.lists(PARTS, max_size=8))
def test_clauses_say_what_the_clause_says(chosen):
    text = " ".join(["first", *chosen * 10])
    clauses = list(FRONT.clauses(text))
    whole = FRONT.clause(text)
    assert words(clauses) == words([whole])
    phones = [t for clause in clauses for t in clause.tokens if t in PHONES]
    assert phones == [t for t in whole.tokens if t in PHONES]
    assert all(len(clause.tokens) <= CLAUSE_TOKENS for clause in clauses)


class Mumbler:
    """Has no phones for a word with a q."""

    name = "mumbler"

    def phones(self, words):
        return [["ə"] * (word not in PAUSES and "q" not in word) for word in words]

    def knows(self, _word):
        return True


def test_a_word_without_phones_is_left_out(monkeypatch):
    front = FrontEnd()
    monkeypatch.setattr(front, "phonemizer", Mumbler())
    assert front.clause("one, qua? two; qui, qui").text == "one? two;"
    assert [clause.text for clause in front.clauses("Quo? One. Quo! Two")] == ["one.", "two."]
    with pytest.raises(TextError, match="nothing in 'quo' can be spoken"):
        front.clause("quo")


def test_no_network_is_needed(monkeypatch):
    def refuse(*_arguments: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert FrontEnd().clause("hello").text == "hello."


@pytest.mark.parametrize("phonemizer", ["gruut", "espeak"])
def test_both_phonemizers_read_alike(phonemizer):
    if phonemizer == "espeak":
        pytest.importorskip("espeakng_loader", reason="no espeakng-loader here")
    clause = FrontEnd(phonemizer).clause("On Jan. 5th the BBC paid $3.50, for NASA's café.")
    assert clause.text == (
        "on january fifth the b b c paid three dollars and fifty cents, for nasa's café."
    )
    check(clause)
