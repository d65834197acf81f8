"""What Prometheus is told: how soon, how fast and how evenly streams come, and how full it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

# numbers of each engine by the name of its voice
Stats = Callable[[], Mapping[str, Mapping[str, float]]]

_FIRST_AUDIO_S = (0.01, 0.015, 0.025, 0.04, 0.06, 0.08, 0.12, 0.2, 0.35, 0.6, 1, 2, 5, 10)
_FACTORS = (0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.5, 2, 3, 5, 8, 12, 20, 50)
_UNDERRUN_S = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)

# how a stream may end
DONE, CANCELLED, TIMEOUT, ERROR = "done", "cancelled", "timeout", "error"
# because what was sent can't be spoken
REFUSED = "refused"


class Metrics:
    """The numbers of one service, in a registry of its own."""

    def __init__(self, stats: Stats) -> None:
        self.registry = registry = CollectorRegistry()
        by = ("voice", "transport")
        self.first_audio_s = Histogram(
            "wavernn_time_to_first_audio_seconds",
            "From a stream's admission to the first samples for its listener.",
            by,
            buckets=_FIRST_AUDIO_S,
            registry=registry,
        )
        self.realtime_factor = Histogram(
            "wavernn_realtime_factor",
            "Seconds of audio a second of a whole stream; 2 is twice as fast as it's heard.",
            by,
            buckets=_FACTORS,
            registry=registry,
        )
        self.underrun_s = Histogram(
            "wavernn_underrun_seconds",
            "Silence that a listener heard in a stream because samples came late.",
            by,
            buckets=_UNDERRUN_S,
            registry=registry,
        )
        self.audio_s = Counter(
            "wavernn_audio_seconds", "Audio handed to listeners.", by, registry=registry
        )
        self.streams = Counter(
            "wavernn_streams",
            "Streams that are over, by how: done, cancelled, timeout, error, refused.",
            (*by, "reason"),
            registry=registry,
        )
        self.refused = Counter(
            "wavernn_refused",
            "Requests refused for want of room or right, by why.",
            ("reason",),
            registry=registry,
        )
        registry.register(_Engines(stats))

    def text(self) -> bytes:
        """All of them in Prometheus' text format, version 0.0.4."""
        return generate_latest(self.registry)


# what is read from an engine when it's asked for
_GAUGES: Mapping[str, tuple[str, Callable[[Mapping[str, float]], float]]] = {
    "wavernn_channels": ("Streams that may be open at once.", lambda s: s["channels"]),
    "wavernn_channels_open": ("Streams that are open.", lambda s: s["channels_open"]),
    "wavernn_lanes": ("Streams that one launch may speak.", lambda s: s["lanes"]),
    "wavernn_lanes_busy": ("Streams in the present launch.", lambda s: s["lanes_busy"]),
    "wavernn_queue": (
        "Streams that could be spoken now but have no lane.",
        lambda s: max(0, s["channels_ready"] - s["lanes"]),
    ),
}


class _Engines(Collector):
    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        return self._families(self._stats())

    def describe(self) -> Iterable[Metric]:
        return self._families({})

    def _families(self, engines: Mapping[str, Mapping[str, float]]) -> Iterator[Metric]:
        for name, (what, value) in _GAUGES.items():
            family = GaugeMetricFamily(name, what, labels=("voice",))
            for voice, stats in engines.items():
                family.add_metric((voice,), value(stats))
            yield family
