"""What the native engine holds for a number of channels, and which of its kernels runs here."""

from __future__ import annotations

from wavernn import kernels
from wavernn.checkpoint import Checkpoint
from wavernn.conditioning import BLOCK_FRAMES
from wavernn.cost import channel_bytes, checkpoint_bytes
from wavernn.kernels import cpu_subscale, native
from wavernn.kernels.cpu import LANES
from wavernn.kernels.pack import FORMATS, GROUP
from wavernn.kernels.pack_fused import pack_fused
from wavernn.kernels.packfile import packed
from wavernn.model import LEVELS
from wavernn.subscale import Order


def _whole(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def workspace_bytes(hidden: int, projection: int, lanes: int, format: str, threads: int = 1) -> int:
    """Bytes of a chunk's working memory for a loop of so many streams.

    `threads` is above 1 where they share out the rows of one stream. Each array begins at a
    multiple of 64 bytes.
    """
    half, P = _whole(hidden // 2, GROUP), _whole(projection, GROUP)
    # h as activations, before and after a step; int8 keeps bytes and words of it
    widths = (1, 2, 1, 2) if format == "int8" else (4, 4)
    sizes = [width * lanes * 2 * half for width in widths]
    # what O1 or O3 gives, logits
    sizes += [4 * lanes * P, 4 * lanes * LEVELS]
    # conditioning, activations of O2 and O4, sums of R h in 64 bytes a group and gate
    sizes += threads * [4 * lanes * 6 * half, 4 * lanes * P, 64 * lanes * 3 * half // GROUP]
    return sum(_whole(size, 64) for size in sizes)


def utterance_bytes(voice: Checkpoint, format: str = FORMATS[0]) -> int:
    """Bytes that the native engine holds for an utterance of a subscale voice, at most.

    What the library asks for; h in float32, the last codes, the de-emphasis' memory; where threads
    meet; codes and gate input of the samples that aren't due yet. Raises BackendUnavailable.
    """
    model = voice.config.model
    lanes = cpu_subscale.Synthesizer(voice, format)
    state = 4 * model.subscale * 2 * _whole(model.hidden // 2, GROUP) + 2 * model.subscale + 8
    samples = Order.of(model).held(BLOCK_FRAMES * voice.config.mel.hop_samples)
    rows = samples // model.conditioning_hop_samples + 2
    window = 2 * samples + 4 * rows * model.gate_rows
    return lanes.workspace_bytes + state + 4 * native.MEETING + window


def memory_bytes(voice: Checkpoint, channels: int, lanes: int, format: str = FORMATS[0]) -> int:
    """Bytes that the native engine holds on one thread, weights included.

    The packed weights, once; the float32 weights of the checkpoint and of the conditioner; one
    workspace of `lanes` streams; for each channel h in float32, its last code, its sample index,
    the de-emphasis' memory, its temperature, its row twice, and what the conditioner keeps. A
    channel of a subscale voice has `utterance_bytes` instead of the loop's part.
    """
    model = voice.config.model
    if model.fused == 2:
        return _fused_bytes(voice, channels, format)
    weights = sum(_whole(array.nbytes, 64) for array in packed(voice, format).arrays.values())
    if model.subscale > 1:
        each = utterance_bytes(voice, format) + channel_bytes(voice.config)
        return checkpoint_bytes(voice.config) + weights + channels * each
    space = workspace_bytes(model.hidden, model.projection, lanes, format)
    state = 4 * 2 * _whole(model.hidden // 2, GROUP) + 2 + 8 + 8 + 4 + 8 + 4
    channel = state + channel_bytes(voice.config)
    return checkpoint_bytes(voice.config) + weights + space + channels * channel


def _fused_bytes(voice: Checkpoint, utterances: int, format: str) -> int:
    """The same for utterances of a fused voice, each with a workspace of its own."""
    packed_voice = pack_fused(voice, format)
    weights = sum(_whole(array.nbytes, 64) for array in packed_voice.arrays.values())
    H, P = 8 * int(packed_voice.header["part"]), int(packed_voice.header["projection"])
    # h as bytes and words or as float32, before and after a step; conditioning; what O1 gives; sums
    # of R h
    sizes = [4 * H, 2 * H, 4 * H, 2 * H, 4 * 3 * H, 4 * P, 4 * P, 2 * H, H]
    utterance = sum(_whole(size, 64) for size in sizes) + 4 * H + 8 + channel_bytes(voice.config)
    return checkpoint_bytes(voice.config) + weights + utterances * utterance


def table(voice: Checkpoint, counts: tuple[int, ...] = (1, 4, 16, 64)) -> dict[str, int]:
    """`memory_bytes` by the number of channels, with as many lanes as a loop carries at most.

    Empty for a subscale voice where the native engine isn't there, which it would ask.
    """
    if voice.config.model.subscale > 1 and kernels.unavailable("cpu", voice.config.model.subscale):
        return {}
    return {str(n): memory_bytes(voice, n, min(n, LANES)) for n in counts}


def backends(subscale: int = 1, fused: int = 1) -> dict[str, str]:
    """By name, what a backend runs here of this kind of voice, or the reason why it can't."""
    return {
        name: kernels.unavailable(name, subscale, fused) or _runs(name) for name in kernels.BACKENDS
    }


def _runs(name: str) -> str:
    if name != "cpu":
        return "runs"
    return f"runs: {native.isa()} (has {', '.join(native.isas())})"
