"""What can go wrong that is not our bug.

Each message says in a sentence what was expected, what came, and what to do.
"""


class WaveRNNError(Exception):
    """Any error whose cause lies outside the program; the command line exits with 2."""


class ConfigError(WaveRNNError):
    """A recipe, overlay or override names an unknown key or an illegal value."""


class AudioError(WaveRNNError):
    """A recording can't be read, or holds nothing that can be used."""


class MelError(WaveRNNError):
    """A mel spectrogram has the wrong shape, scale or specification for the voice."""


class CheckpointError(WaveRNNError):
    """A checkpoint is damaged, truncated, foreign or of another format version."""


class DataError(WaveRNNError):
    """A folder of recordings can't be trained on or evaluated."""


class TrainingError(WaveRNNError):
    """A run can't go on: it diverged, or its folder doesn't match the request."""


class BackendUnavailable(WaveRNNError):
    """The asked-for engine can't run here; the message says why."""


class TextError(WaveRNNError):
    """A text holds nothing that can be spoken, or what makes phones of it can't run here."""


class EngineBusy(WaveRNNError):
    """No channel is free; one may be in `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


def require(condition: bool, sentence: str) -> None:
    """Raises ConfigError with this sentence unless the condition holds."""
    if not condition:
        raise ConfigError(sentence)
