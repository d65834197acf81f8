"""Texts that nobody should have to think of."""

# ruff: noqa: E501

import numpy as np


def odd_texts():
    """Two hundred texts that nobody should have to think of."""
    random = np.random.default_rng(0)
    fixed = [
        "", " ", "\n\t\r", ".", "...", "?!", "—", "\u200b\u200d\ufeff", "\x00\x01\x02", "\x7f",
        "\U0001f600", "\U0001f600 hello \U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469", "日本語",
        "日本語 and English", "Привет, мир", "مرحبا", "שלום", "ελληνικά", "हिन्दी", "a\u0301 e\u0301",
        "\u202eright to left\u202c", "zalgo h\u0335\u0321e\u0334\u0322l\u0336\u0327l\u0337o\u0338",
        "0", "1", "12345678901234567890", "3.14159", "1e10", "-1", "1/2", "½", "10²", "٣٤٥", "１２３",
        "0x1F", "1,234,567.89", "$", "$5", "$1,000,000.01", "€", "100%", "%", "#", "#hashtag", "@me",
        "a@b.co", "http://example.com/a?b=c&d=e#f", "www.example.com", "C:\\path\\file.txt", "/etc/passwd",
        "<speak>Hello <break time='1s'/> there</speak>", "<prosody rate='slow'>slow</prosody>", "<", ">",
        "<<<>>>", "<script>alert(1)</script>", "&amp; &lt; &#39;", "{{template}}", "${jndi:ldap://x}",
        "'; DROP TABLE users; --", "%s%s%n", "\\n\\t", "null", "None", "NaN", "undefined", "true",
        "**bold** _it_ `code`", "# Title\n\n- a\n- b", "```py\nprint(1)\n```", "[link](http://x.y)",
        "a" * 500, "A" * 500, "ab " * 600, "1" * 500, "." * 500, "-" * 300, "!?" * 200, "\n" * 500,
        "'" * 100, '"' * 99, "(((((", ")))))", "a.b.c.d.e.f.g", "U.S.A.", "e.g. i.e. etc.", "Ph.D. M.D.",
        "Mr. Mrs. Dr. St.", "XIV", "IIII", "MMMM", "12:34", "25:61", "12/31/1999", "1999-12-31",
        "31.12.1999", "0/0/0", "5'10\"", "90°", "−40 °C", "3×4=12", "x^2+y^2", "∑∫√∞", "♪♫", "™®©", "…",
        "“quoted”", "‘single’", "it’s", "rock’n’roll", "don''t", "o'clock", "'tis", "--", "–", "naïve café",
        "ﬁ ligature", "ｆｕｌｌ ｗｉｄｔｈ", "𝔣𝔯𝔞𝔨𝔱𝔲𝔯", "Ⅷ", "①②③", "🅰🅱", "ß", "ı İ", "æøå", "Łódź", "\ud83d",
        "qwrtpsdfghjklzxcvbnm", "xzqj", "aaaaaaaeeeeeiiii", "I", "a", "A I A I", "TTS API GPU", "iPhone14Pro",
        "word\u00adword", "no\u00a0break", "tab\tbed", "new\nline", "cr\r\nlf", "form\ffeed", "\u2028\u2029x",
        "x" * 39 + " " + "y" * 41, "supercalifragilisticexpialidocious", "Llanfairpwllgwyngyll",
    ]  # fmt: skip
    pools = [
        "abc .,!?'\"-",
        "0123456789.,:/-$%",
        "\u0000\u0007\u001b[31m",
        "aé日ж🙂 ",
        "<>/&;= a\"'",
    ]
    while len(fixed) < 200:
        pool = list(pools[len(fixed) % len(pools)])
        fixed.append("".join(random.choice(pool, int(random.integers(1, 120)))))
    return fixed[:200]
