"""What the service is told at its start, with its limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from wavernn.errors import ConfigError

# names the API keys in the environment, separated by commas; a command line can be seen by others
KEYS_VARIABLE = "WAVERNN_SERVE_API_KEYS"
# a character of JSON may be written as two escapes of six; and what stands around the text
_BYTES_A_CHARACTER, _BYTES_AROUND = 12, 1 << 14


@dataclass(frozen=True)
class Settings:
    """Options of `wavernn serve`; raises ConfigError for one out of range."""

    # names or files; the first is the default one
    voices: tuple[str, ...] = ("default",)
    backend: str = "auto"
    # of weights; None: the backend's own choice
    format: str | None = None
    threads: int = 1
    # streams of each voice at once; None: what the machine was measured to do
    channels: int | None = None
    host: str = "127.0.0.1"
    # 0: any that is free
    port: int = 8000
    # where the Wyoming protocol is spoken: host and port; None: nowhere
    wyoming: tuple[str, int] | None = None
    # none: who reaches the port may use it
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    # other sites whose pages may use the service, as https://example.org, or * for all
    cors_origins: tuple[str, ...] = ()
    # addresses of proxies whose X-Forwarded-For is believed
    proxies: tuple[str, ...] = ()
    # of a request, also of what a compressed mel unfolds to
    body_bytes: int = 32 << 20
    # in which a request's body must have come
    body_s: float = 60.0
    text_characters: int = 4096
    # of speech that one request may ask for
    mel_s: float = 600.0
    # in which a response must be over
    stream_s: float = 900.0
    # after which a listener who takes nothing is cut off
    idle_s: float = 30.0
    # of a client, which is an API key or else an address; None: no limit
    requests_per_minute: int | None = None
    streams_per_client: int | None = None
    # in which running streams may finish when the service ends
    drain_s: float = 60.0

    @property
    def text_bytes(self) -> int:
        """What holds the longest text, however it's written as JSON, and what stands around it."""
        return _BYTES_A_CHARACTER * self.text_characters + _BYTES_AROUND

    def __post_init__(self) -> None:
        if not self.voices:
            raise ConfigError("a service needs at least one voice; name one, such as default")
        for port in (self.port, self.wyoming[1] if self.wyoming else 0):
            if not 0 <= port < 1 << 16:
                raise ConfigError(f"a port is a number in 0..65535, got {port}")
        for part in fields(self):
            value = getattr(self, part.name)
            number = isinstance(value, int | float) and part.name != "port"
            if number and not 0 < value < float("inf"):
                raise ConfigError(f"{part.name} must be positive and finite, got {value}")
        for key in self.api_keys:
            # what a header can carry
            if not (key.isascii() and key.isprintable() and " " not in key and len(key) >= 8):
                raise ConfigError("an API key has 8 or more printable ASCII characters, no spaces")


def read_keys(path: Path | None, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Collects API keys from a file, one a line, and from `KEYS_VARIABLE`.

    Empty lines and those that begin with # are passed over. Raises ConfigError where the file can't
    be read or holds no key, since a service without keys is open.
    """
    keys = [key.strip() for key in environment.get(KEYS_VARIABLE, "").split(",")]
    if path is not None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise ConfigError(f"can't read the API keys in {path}: {reason}") from None
        found = [line.strip() for line in lines if not line.lstrip().startswith("#")]
        if not any(found):
            raise ConfigError(f"{path} holds no API key; write one a line")
        keys += found
    return tuple(dict.fromkeys(key for key in keys if key))


def read_address(text: str, host: str) -> tuple[str, int]:
    """Reads [HOST:]PORT, where an IPv6 address stands in brackets; raises ConfigError."""
    given, _, port = text.rpartition(":")
    if not port.isdecimal() or (":" in given and not (given[0] == "[" and given[-1] == "]")):
        raise ConfigError(f"expected [HOST:]PORT such as 10200 or 0.0.0.0:10200, got {text}")
    return given.strip("[]") or host, int(port)
