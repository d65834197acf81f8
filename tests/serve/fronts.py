"""A front end that knows no language, for all tests of the service with text."""

import threading

from wavernn.errors import MelError

# the longest that anything here waits
LONG = 60.0


class Words:
    """Makes a mel a word, of its number of characters; bad and broken are words that fail."""

    def __init__(self, mel_of):
        self.mel_of = mel_of
        self.asked, self.closed = [], threading.Event()
        # waits before each word but the first
        self.go_on = threading.Event()
        self.go_on.set()

    def frames(self, text, voice, speed):
        self.asked.append((text, voice, speed))
        try:
            for number, word in enumerate(text.split()):
                if number:
                    assert self.go_on.wait(LONG)
                if word.strip(".") == "bad":
                    raise MelError("the word bad has no sound; leave it out")
                if word.strip(".") == "broken":
                    raise ZeroDivisionError
                yield self.mel_of(len(word))
        finally:
            self.closed.set()
