import re
import sys
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wavernn.english.normalise import WORD_LETTERS, normalise
from wavernn.english.pauses import PAUSES, SENTENCE_ENDS, stronger
from wavernn.english.phonemes import load

KNOWN = load("gruut").knows

SAID = {
    # cardinals
    "0": "zero",
    "7 of 13": "seven of thirteen",
    "42": "forty two",
    "100 or 101": "one hundred or one hundred one",
    "1,000": "one thousand",
    "1,234,567": "one million two hundred thirty four thousand five hundred sixty seven",
    "6439 persons": "six thousand four hundred thirty nine persons",
    "10000": "ten thousand",
    "3.14": "three point one four",
    ".5": "zero point five",
    "-3": "minus three",
    "−40": "minus forty",
    "007": "zero zero seven",
    "1.2.3": "one point two point three",
    "192.168.0.1": "one hundred ninety two dot one hundred sixty eight dot zero dot one",
    "6.02e23": "six point zero two times ten to the twenty three",
    "٣": "three",
    "٠٠٧": "zero zero seven",
    "1 000 000": "one million",
    "1_500": "one thousand five hundred",
    "1\u202f500": "one thousand five hundred",
    "1,2,3": "one , two , three",
    # ordinals
    "1st 2nd 3rd 4th": "first second third fourth",
    "the 21st": "the twenty first",
    "the 12th": "the twelfth",
    "100th": "one hundredth",
    "the 1,000th": "the one thousandth",
    # fractions
    "1/2": "one half",
    "3/4": "three quarters",
    "2/3": "two thirds",
    "½": "one half",
    "3½": "three and one half",
    "2 1/4": "two and one quarter",
    "5/8": "five eighths",
    "24/7": "twenty four seven",
    "7/128": "seven over one hundred twenty eight",
    # ranges
    "1914-18": "nineteen fourteen to eighteen",
    "1914–1918": "nineteen fourteen to nineteen eighteen",
    "5-10": "five to ten",
    "pp. 5-10": "pages five to ten",
    "a 3-2 win": "a three to two win",
    "3:1": "three to one",
    # years
    "1984": "nineteen eighty four",
    "2005": "two thousand five",
    "2000": "two thousand",
    "2024": "twenty twenty four",
    "1905": "nineteen oh five",
    "1900": "nineteen hundred",
    "the 1900s": "the nineteen hundreds",
    "the 1980s": "the nineteen eighties",
    "the 1990s–2000s": "the nineteen nineties to two thousands",
    "1999/2000": "nineteen ninety nine two thousand",
    "the '90s": "the nineties",
    "the ’60s": "the sixties",
    "in her 20s": "in her twenties",
    "summer of '69": "summer of sixty nine",
    # money
    "$1": "one dollar",
    "$3.50": "three dollars and fifty cents",
    "$0.99": "ninety nine cents",
    "$1.01": "one dollar and one cent",
    "£2m": "two million pounds",
    "€1,000": "one thousand euros",
    "$1.5 billion": "one point five billion dollars",
    "$5-10": "five to ten dollars",
    "-$5": "minus five dollars",
    "50¢": "fifty cents",
    "¥500": "five hundred yen",
    "US$20": "twenty u s dollars",
    "£3.05": "three pounds and five pence",
    "100 USD": "one hundred u s dollars",
    "5€": "five euros",
    "$5/day": "five dollars per day",
    "£10 10s. 6d.": "ten pounds ten shillings six pence",
    "$100K–$200K": "one hundred thousand dollars to two hundred thousand dollars",
    "NZ$3": "three new zealand dollars",
    "€3,50": "three euros and fifty cents",
    # dates
    "Jan. 5th, 1984": "january fifth , nineteen eighty four",
    "January 5, 1984": "january fifth , nineteen eighty four",
    "5 January 1984": "the fifth of january nineteen eighty four",
    "on the 5th of May": "on the fifth of may",
    "On the 14th June, 1800": "on the fourteenth june , eighteen hundred",
    "2024-03-05": "march fifth , twenty twenty four",
    "3/5/2024": "march fifth , twenty twenty four",
    "25/12/1999": "december twenty fifth , nineteen ninety nine",
    "31.12.1999": "december thirty first , nineteen ninety nine",
    "Sept. 2020": "september twenty twenty",
    "Feb 30 people": "february thirtieth people",
    "We march 5 miles": "we march five miles",
    "Mon. 3 May": "monday the third of may",
    "12 Mar. 2001": "the twelfth of march two thousand one",
    # times
    "10:30": "ten thirty",
    "10:30 p.m.": "ten thirty p m .",
    "at 10:30 p.m. we": "at ten thirty p m we",
    "at 10 p.m. The end": "at ten p m . the end",
    "14:05": "fourteen oh five",
    "7am": "seven a m",
    "9:00": "nine o'clock",
    "9:00 AM": "nine a m",
    "0:15": "zero fifteen",
    "1:02:03": "one oh two and three seconds",
    "9:30-11:00 am": "nine thirty to eleven a m",
    "9-11 am": "nine to eleven a m",
    "10am–2pm": "ten a m to two p m",
    # units
    "5 km": "five kilometers",
    "1 km": "one kilometer",
    "70kg": "seventy kilograms",
    "21 °C": "twenty one degrees celsius",
    "-5°F": "minus five degrees fahrenheit",
    "20%": "twenty percent",
    "3.5 %": "three point five percent",
    "60 mph": "sixty miles per hour",
    "16 GB": "sixteen gigabytes",
    "5-10 km/h": "five to ten kilometers per hour",
    "a 5-km run": "a five kilometer run",
    "3 m^2": "three square meters",
    "10 m²": "ten square meters",
    "2.4 GHz": "two point four gigahertz",
    "100 ms": "one hundred milliseconds",
    "5m": "five meters",
    "a few km": "a few kilometers",
    "5 s": "five seconds",
    "5'11\"": "five foot eleven",
    "10K": "ten thousand",
    "4K": "four k",
    "1080p": "one thousand eighty p",
    "2 tsp. salt": "two teaspoons salt",
    "5 min. later": "five minutes later",
    "Room 4B": "room four b",
    "A100-80GB": "a one hundred eighty gigabytes",
    # abbreviations
    "Dr. Smith": "doctor smith",
    "Mr. and Mrs. Jones": "mister and missus jones",
    "Mr Jones": "mister jones",
    "St. Paul": "saint paul",
    "Main St. is": "main street is",
    "Elm Dr. is": "elm drive is",
    "on Sun. The": "on sunday . the",
    "in St. Louis": "in saint louis",
    "e.g. this": "for example this",
    "i.e. that": "that is that",
    "dogs, cats, etc.": "dogs , cats , et cetera .",
    "us vs. them": "us versus them",
    "No. 5": "number five",
    "No. I won't.": "no . i won't .",
    "No. He": "no . he",
    "the U.S. team": "the u s team",
    "in the U.S. The": "in the u s . the",
    "Acme Inc. is": "acme incorporated is",
    "I sat. I ran.": "i sat . i ran .",
    "vol. 3": "volume three",
    # initials and acronyms
    "J. R. Smith": "j r smith",
    "J.R.R. Tolkien": "j r r tolkien",
    "the letter A. Others": "the letter a . others",
    "by Mr. A. Smith": "by mister a smith",
    "BBC": "b b c",
    "the BBC's": "the b b c's",
    "DVDs": "d v d's",
    "NASA": "nasa",
    "NATO's": "nato's",
    "the USA": "the u s a",
    "the US and it": "the u s and it",
    "give us IT": "give us i t",
    "STOP THAT NOW": "stop that now",
    "AT&T": "a t and t",
    "an MP3": "an m p three",
    "a Ph.D. in": "a p h d in",
    "COVID-19": "covid nineteen",
    "iPhone": "iphone",
    "OpenSSL": "open s s l",
    # addresses
    "example.com/a": "example dot com slash a",
    "https://example.com": "example dot com",
    "www.example.org.": "w w w dot example dot org .",
    "a.b@example.com": "a dot b at example dot com",
    "see main.py": "see main dot p y",
    # phone numbers
    "555-1234": "five five five , one two three four",
    "(555) 123-4567": "five five five , one two three , four five six seven",
    "+44 20 7946 0958": "plus four four , two zero , seven nine four six , zero nine five eight",
    "123-45-6789": "one two three , four five , six seven eight nine",
    # roman numerals
    "Louis XIV": "louis the fourteenth",
    "King Charles III's crown": "king charles the third's crown",
    "Henry V": "henry the fifth",
    "told Henry I was": "told henry i was",
    "World War II": "world war two",
    "Chapter IV.": "chapter four .",
    "chapter iv": "chapter four",
    "the part I like": "the part i like",
    "MIX": "mix",
    # symbols
    "salt & pepper": "salt and pepper",
    "me @ home": "me at home",
    "2 + 2 = 4": "two plus two equals four",
    "5 * 3": "five times three",
    "3 x 4": "three by four",
    "1 < 2": "one less than two",
    "#5": "number five",
    "#HelloWorld": "hashtag hello world",
    "@user": "at user",
    "C++": "c plus plus",
    "and/or": "and or",
    "he/she": "he slash she",
    "5 kg / 11 lbs": "five kilograms , eleven pounds",
    "met w/ me": "met with me",
    "y >= 10 != 3": "y at least ten is not equal to three",
    "C#": "c sharp",
    "an A- or B+": "an a minus or b plus",
    "lol :-) <3": "lol",
    "x^2": "x squared",
    "10²": "ten squared",
    "π": "pi",
    "=====": "",
    "**bold** _it_ `code`": "bold it code",
    # pauses
    "Wait... what?": "wait … what ?",
    "Wait… what?!": "wait … what ?",
    "yes -- no": "yes — no",
    "yes - no": "yes — no",
    "yes—no": "yes — no",
    "well-known": "well known",
    "one (two)": "one , two",
    "one (two).": "one , two .",
    "one (two) three": "one , two , three",
    "(one) two": "one , two",
    '"Go," he said.': "go , he said .",
    "a; b: c": "a ; b : c",
    "hey!!!": "hey !",
    "one.\n\ntwo": "one . two",
    "one\n\ntwo": "one . two",
    "one\ntwo": "one two",
    "- one\n- two": "one . two",
    # words
    "sooo long, hmmm": "so long , hm",
    "the zxcvb": "the z x c v b",
    "O'Neil's": "o'neil's",
    "iPhone's": "iphone's",
    "OpenSSL's": "open s s l's",
    "YouTube": "youtube",
    "item(s)": "items",
    # letters of all kinds
    "don’t": "don't",
    "'tis": "tis",
    "rock 'n' roll": "rock n roll",
    "café": "café",
    "cafe\u0301": "café",
    "ｆｕｌｌ": "full",
    "ﬁne": "fine",
    "so\u00adft zero\u200bwidth": "soft zerowidth",
    "hi 😀 you": "hi you",
    "hi 👩‍👩‍👧 you": "hi you",
    "say Привет now": "say now",
    "a\x00b\x07c": "a b c",
    "日本 ok。yes": "okay . yes",
    "Łódź": "łódź",
    # tags
    "<speak>Hi <break time='1s'/> you</speak>": "hi , you",
    "a <b>bold</b> word": "a bold word",
    "a <script>x()</script> b": "a b",
    "see [this](https://x.org/y)": "see this",
    "e.g this": "for example this",
    "fish &amp; chips": "fish and chips",
    "<!-- no --> yes": "yes",
    # nothing to say
    "": "",
    "😀": "",
    "... !": "",
    "Привет": "",
    "\u200b\u200b": "",
    "()": "",
}


def said(text: str) -> str:
    return " ".join(normalise(text, KNOWN))


@pytest.mark.parametrize(("text", "words"), SAID.items())
def test_it_says(text, words):
    assert said(text) == words


def test_the_stronger_of_two_marks_stays():
    assert [stronger(" ", mark) for mark in PAUSES] == list(PAUSES)
    assert stronger(",", ".") == stronger(".", ",") == "."
    assert stronger("!", "?") == "?"


def test_a_word_without_end_is_cut():
    words = list(normalise("ab" * 250, KNOWN))
    assert "".join(words) == "ab" * 250
    assert max(map(len, words)) == WORD_LETTERS


def test_it_reads_as_far_as_it_is_asked():
    words = normalise("one two. " * 100_000, KNOWN)
    assert [next(words) for _ in range(3)] == ["one", "two", "."]


@given(st.text() | st.text("aAbI0159.,:/-'$£%°() \n#@<>&^½²IVX"))
def test_any_text_gives_words_and_marks(text):
    tokens = list(normalise(text, KNOWN))
    assert tokens == list(normalise(text, KNOWN))
    assert tokens[:1] == [] or tokens[0] not in PAUSES
    for before, token in pairwise(tokens):
        assert before not in PAUSES or token not in PAUSES
    for token in tokens:
        assert token in PAUSES or re.fullmatch(r"[^\W\d_A-Z]+(?:'[^\W\d_A-Z]+)*", token)
        assert len(token) <= WORD_LETTERS
    assert set(SENTENCE_ENDS) < set(PAUSES)


UNITS = [
    "a",
    "ab",
    "1",
    "1,",
    "a.",
    "Mr. ",
    "<",
    "<a",
    "<!--",
    "a-",
    "1-",
    "1/",
    "1:",
    "a@b.",
    "A ",
]
UNITS += ["(", "$1", "a'", "http://", "&amp;", "- \n", "0.", "½", "\ufdfa", "e\u0301", "\u200b"]
UNITS += ["\n", ". ", "a.b-c.", "www.", "Henry I "]


@pytest.mark.parametrize("unit", UNITS)
def test_work_grows_no_faster_than_the_text(unit):
    def calls(length: int) -> int:
        count = 0

        def counted(_frame: object, event: str, _what: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        text = (unit * length)[:length]
        before = sys.getprofile()
        sys.setprofile(counted)
        try:
            for _ in normalise(text, KNOWN):
                pass
        finally:
            sys.setprofile(before)
        return count

    # what is kept by then costs nothing later
    calls(100)
    assert calls(4000) < 150 * 4000
    assert calls(4000) < 9 * calls(500) + 1000
