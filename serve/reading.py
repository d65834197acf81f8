"""Text to mel for the voices that are served: `service.TextToMel` over one acoustic model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import numpy as np

from wavernn.checkpoint import Checkpoint
from wavernn.errors import CheckpointError, MelError, TextError
from wavernn.narration import Narrator, open_acoustic

log = logging.getLogger(__name__)

DEFAULT = "default"


class Reading:
    """Reads texts for the voices that take the acoustic model's mel."""

    def __init__(self, narrator: Narrator, voices: Mapping[str, Checkpoint]) -> None:
        self._narrator = narrator
        # by name, why a voice can't speak what is read
        self._unfit: dict[str, str] = {}
        for name, voice in voices.items():
            try:
                narrator.check(voice)
            except MelError as error:
                self._unfit[name] = str(error)
                log.warning("%s can't speak text: %s", name, error)

    def frames(self, text: str, voice: str, speed: float) -> Iterator[np.ndarray]:
        """Yields the mel of one clause after the other; see `service.TextToMel`.

        Raises MelError for a voice of another mel, TextError for a text that can't be spoken.
        """
        if voice in self._unfit:
            raise MelError(self._unfit[voice])
        return self._narrator.frames(text, speed)


def open_reading(acoustic: str, voices: Mapping[str, Checkpoint]) -> Reading | None:
    """Opens an acoustic model by name or file; None, with the reason in the log, for "none".

    So it is where the default one can't be had or the front end isn't installed; for a model that
    was named, that raises CheckpointError or TextError.
    """
    if acoustic == "none":
        return None
    try:
        return Reading(Narrator(open_acoustic(acoustic)), voices)
    except (CheckpointError, TextError) as error:
        if acoustic != DEFAULT:
            raise
        log.warning("text is refused: %s", error)
        return None
