import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavernn.english import espeak
from wavernn.english.gruut import letter_features, plain, sentence_features
from wavernn.english.phonemes import CONSONANTS, ENGLISH, STRESS, VOWELS, load
from wavernn.errors import TextError

GRUUT = load("gruut")
ESPEAK = pytest.param(
    "espeak",
    marks=pytest.mark.skipif(not find_spec("espeakng_loader"), reason="no espeakng-loader here"),
)
SOUNDS = [
    ("hello", "hɛlˈoʊ"),
    ("church", "t͡ʃˈɚt͡ʃ"),
    ("judge", "d͡ʒˈʌd͡ʒ"),
    # in the lexicon without its accent, or with it
    ("café", "kæfˈeɪ"),
    ("zoë", "zˈoʊi"),
    # weak, before a vowel's sound, at the end of a phrase
    ("the man", "ðə mˈæn"),
    ("the apple", "ði ˈæpəl"),
    ("the hour", "ði ˈaʊɚ"),
    ("the unit", "ðə jˈunɪt"),
    ("a man", "ə mˈæn"),
    ("to go", "tə ɡˈoʊ"),
    ("to eat", "tu ˈit"),
    ("what for", "wˈʌt fˈɔɹ"),
    ("for me", "fɚ mˈi"),
    ("look what for , it", "lˈʊk wˈʌt fˈɔɹ  ˈɪt"),
    # letters
    ("u s a", "jˈu ˈɛs ˈeɪ"),
    ("a b", "ˈeɪ bˈi"),
    ("b b c's", "bˈi bˈi sˈiz"),
    # one spelling, two sounds
    ("i read it yesterday", "ˈaɪ ɹˈɛd ˈɪt jˈɛstɚdˌeɪ"),
    ("he will read it", "hˈi wˈɪl ɹˈid ˈɪt"),
    ("she has read it", "ʃˈi hˈæz ɹˈɛd ˈɪt"),
    ("a record", "ə ɹˈɛkɚd"),
    ("to record it", "tə ɹɪkˈɔɹd ˈɪt"),
    ("they live in a live show", "ðˈeɪ lˈɪv ˈɪn ə lˈaɪv ʃˈoʊ"),
    ("the use of it", "ðə jˈus əv ˈɪt"),
    ("use it", "jˈuz ˈɪt"),
    ("he used it", "hˈi jˈuzd ˈɪt"),
    ("used to be", "jˈust tə bˈi"),
    ("a tear in the eye", "ə tˈɪɹ ˈɪn ði ˈaɪ"),
    ("close the door", "klˈoʊz ðə dˈɔɹ"),
    # not in the lexicon
    ("shapeliness", "ʃˈeɪplinəs"),
    ("undefended", "ʌndɪfˈɛndɪd"),
    ("woodcutters", "wˈʊdkˌʌtɚz"),
    ("characterless", "kˈɛɹɪktɚləs"),
    # one letter, two phones
    ("blaxop", "blˈæksəp"),
    ("blorp", "blˈɔɹp"),
    ("gigabits", "ɡˈɪɡəbɪts"),
    ("blorp's", "blˈɔɹps"),
]


phonemizer_of = cache(load)
WORDS = st.from_regex(r"[a-zßéøłþ]{1,30}('[a-z]{1,3})?|[.,—]", fullmatch=True)


def sound(phonemizer, text):
    return " ".join(map("".join, phonemizer.phones(text.split())))


@pytest.mark.parametrize(("text", "phones"), SOUNDS)
def test_gruut_says(text, phones):
    assert sound(GRUUT, text) == phones


def test_gruut_knows_words_but_not_letters():
    assert GRUUT.knows("nasa") and GRUUT.knows("don't")
    assert not GRUUT.knows("bbc")


def test_every_phone_of_the_lexicon_is_english():
    phones = {
        phone.lstrip("".join(STRESS))
        for sounds in GRUUT._lexicon.values()
        for _, said in sounds
        for phone in said.split()
    }
    assert phones == set(ENGLISH)
    assert len(set(ENGLISH)) == len(ENGLISH)


@pytest.mark.parametrize("name", ["gruut", ESPEAK])
@given(words=st.lists(WORDS, max_size=12))
def test_any_words_give_english_phones(name, words):
    phonemizer = phonemizer_of(name)
    sounds = phonemizer.phones(words)
    assert len(sounds) == len(words)
    for word, phones in zip(words, sounds, strict=True):
        assert bool(phones) <= word[0].isalpha()
        for phone in phones:
            assert phone in CONSONANTS or phone.lstrip("".join(STRESS)) in VOWELS
    assert phonemizer.phones(words) == sounds


@pytest.mark.parametrize("name", ["gruut", ESPEAK])
def test_threads_agree(name):
    phonemizer = phonemizer_of(name)
    texts = [text for text, _ in SOUNDS] * 20
    alone = [sound(phonemizer, text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: sound(phonemizer, text), texts)) == alone


@pytest.mark.parametrize(
    ("written", "plainly"), [("café", "cafe"), ("łódź", "lodz"), ("straße", "strasse"), ("o", "o")]
)
def test_accents_fall_off(written, plainly):
    assert plain(written) == plainly


# what gruut 2.4's GraphemesToPhonemes.word2features and PartOfSpeechTagger.sent2features give
def test_letters_have_the_features_of_the_model():
    a, b, c, d, e = "YQ==", "Yg==", "Yw==", "ZA==", "ZQ=="
    first, second, *_, last = letter_features("abcde")
    after = {"grapheme+1": b, "grapheme+2": c, "grapheme+3": d}
    assert first == {"bias": 1.0, "grapheme": a, "begin": True, **after}
    after = {"grapheme+1": c, "grapheme+2": d, "grapheme+3": e}
    assert second == {"bias": 1.0, "grapheme": b, "grapheme-1": a, **after}
    before = {"grapheme-1": d, "grapheme-2": c, "grapheme-3": b}
    assert last == {"bias": 1.0, "grapheme": e, "end": True, **before}


def test_words_have_the_features_of_the_tagger():
    first, _, last = sentence_features(["i", "ran", "."])
    assert first["word"] == "SQ=="
    assert first["BOS"] and last["EOS"] and last["word.ispunctuation"]
    assert (first["+1:word[:2]"], first["+1:word[-3:]"], first["+2:len(word)"]) == ("ra", "ran", 1)
    assert last["-2:bias"] == 1.0


@pytest.mark.parametrize("name", [ESPEAK])
@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("hello world", "həlˈoʊ wˈɚld"),
        ("better button", "bˈɛtɚ bˈʌtən"),
        ("church judge", "t͡ʃˈɚt͡ʃ d͡ʒˈʌd͡ʒ"),
        # espeak-ng says the first two in one
        ("in the end", "ˈɪn ðɪ ˈɛnd"),
        ("u s a", "jˈu ˈɛs ˈeɪ"),
        ("a b", "ˈeɪ bˈi"),
        ("yes , man", "jˈɛs  mˈæn"),
    ],
)
def test_espeak_says(name, text, phones):
    assert sound(phonemizer_of(name), text) == phones


@pytest.mark.parametrize(
    ("written", "phones"),
    [("ˌʌ_n", "ˌʌ n"), ("ˈɑːɹ_m", "ˈɑ ɹ m"), ("ˌn̩", "ˌə n"), ("ˈaɪɚ_d", "ˈaɪ ɚ d"), ("q_w_", "w")],
)
def test_notation(written, phones):
    assert espeak.notation(written) == phones.split()


def test_the_program_does_where_the_library_lacks(tmp_path, monkeypatch):
    program = tmp_path / "espeak-ng"
    program.write_text('#!/bin/sh\ncat > "$0.in"\necho " h_ə_l_ˈoʊ w_ˈɜː_l_d"\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert sound(load("espeak"), "hello world") == "həlˈoʊ wˈɚld"
    assert (tmp_path / "espeak-ng.in").read_text() == "hello world"
    program.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(TextError, match=r"the program espeak-ng failed: .*exit status 1"):
        sound(load("espeak"), "hello")


def test_what_lacks_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setitem(sys.modules, "gruut_lang_en", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TextError, match="needs espeak-ng; install it with pip install espeakng-l"):
        load("espeak")
    with pytest.raises(TextError, match="pip install gruut-lang-en python-crfsuite"):
        load("gruut")
    with pytest.raises(TextError, match=r"no phonemizer is called 'festival'; .* gruut and espeak"):
        load("festival")


def test_only_what_is_asked_for_is_loaded():
    code = (
        "import sys; from wavernn.text import FrontEnd; "
        "heavy = {'gruut_lang_en', 'pycrfsuite', 'espeakng_loader', 'torch', 'ctypes'}; "
        "print(sorted(heavy & set(sys.modules))); "
        "FrontEnd(); print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["[]", "['gruut_lang_en', 'pycrfsuite']"]
    assert done.stderr == ""
