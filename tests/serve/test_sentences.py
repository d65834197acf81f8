import pytest

from wavernn.serve.sentences import LONGEST_CHARACTERS, Sentences

TEXTS = {
    "two": ("One is here. Two", ["One is here.", "Two"]),
    "marks": ('He said "no!" Why?! Well… Yes.', ['He said "no!"', "Why?!", "Well…", "Yes."]),
    "abbreviations": (
        "Dr. Smith of the U.S. met J. Doe, e.g. at 5 p.m. (approx. then). He left.",
        ["Dr. Smith of the U.S. met J. Doe, e.g. at 5 p.m. (approx. then).", "He left."],
    ),
    "numbers": ("It costs 3.50 or v1.2.3 now. Yes", ["It costs 3.50 or v1.2.3 now.", "Yes"]),
    "lists": ("1. Eat.\n2. Sleep.", ["1.", "Eat.", "2.", "Sleep."]),
    "paragraphs": (
        "A title\n\nText that\nis wrapped. End",
        ["A title", "Text that\nis wrapped.", "End"],
    ),
    "only marks": ("... and so on. Good", ["... and so on.", "Good"]),
    "no spaces": ("你好。再见！", ["你好。", "再见！"]),
    "nothing": (" \n\n \t", []),
}


def gathered(text, size):
    sentences = Sentences()
    found = []
    for start in range(0, len(text), size):
        found += sentences.push(text[start : start + size])
    rest = sentences.rest()
    return found + ([rest] if rest else [])


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("text", "sentences"), TEXTS.values(), ids=TEXTS)
def test_sentences_are_the_same_however_they_are_written(text, sentences, size):
    assert gathered(text, size) == sentences


def test_a_sentence_is_given_as_soon_as_a_space_ends_it():
    sentences = Sentences()
    assert sentences.push("One is here.") == []
    assert sentences.push(" ") == ["One is here."]
    assert sentences.rest() is None


@pytest.mark.parametrize("size", [1, 17, 5000])
@pytest.mark.parametrize("word", ["word ", "w" * 50 + ", a ", "w" * 999])
def test_what_has_no_end_is_cut_and_nothing_is_lost(word, size):
    text = word * (2000 // len(word))
    found = gathered(text, size)
    assert all(0 < len(part) <= LONGEST_CHARACTERS for part in found)
    assert "".join(found).replace(" ", "") == text.replace(" ", "")
    if " " in word:
        assert " ".join(found) == text.strip()
    if "," in word:
        assert all(part.endswith(",") for part in found[:-1])
