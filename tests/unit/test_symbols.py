import pytest

from wavernn.errors import TextError
from wavernn.symbols import START, Alphabet, split
from wavernn.text import PAUSES, WORD_BREAK


def test_an_alphabet_holds_each_phone_once_without_its_stress():
    alphabet = Alphabet.of(["ˈæ", "æ", "ˌoʊ", "t͡ʃ", WORD_BREAK, "."])
    assert alphabet.symbols == (START, WORD_BREAK, *PAUSES, "oʊ", "t͡ʃ", "æ")


def test_a_clause_is_numbered_behind_the_start():
    alphabet = Alphabet(["^", " ", ".", "b", "æ"])
    ids_J2 = alphabet.encode(("b", "ˈæ", " ", "ˌæ", "."))
    assert ids_J2.tolist() == [[0, 0], [3, 0], [4, 1], [1, 0], [4, 2], [2, 0]]


def test_a_phone_of_another_language_is_named():
    with pytest.raises(TextError, match="expected phones that the voice was trained with, got 'x'"):
        Alphabet(["^", "."]).encode(("x", "."))


@pytest.mark.parametrize(
    ("token", "parts"), [("ˈoʊ", ("oʊ", 1)), ("ˌɚ", ("ɚ", 2)), (" ", (" ", 0))]
)
def test_stress_is_parted_from_the_phone(token, parts):
    assert split(token) == parts
