"""The latency kernel under Triton's interpreter, which Gluon reaches through a stand-in."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from wavernn import audio
from wavernn.checkpoint import Checkpoint
from wavernn.kernels import reference
from wavernn.kernels.gpu import weights
from wavernn.kernels.gpu.call import Call

# looks at a word that the slowest of a few programs in lockstep never needs
LOOKS = 2000
SEEDS = (0, 1, 2)
WRITTEN = ("h_BH", "code_B2", "sample_B", "memory_B", "codes_BT2", "audio_BT")


def _beside(name: str) -> ModuleType:
    # this folder is no package
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shim() -> ModuleType:
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton isn't installed")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("Triton's interpreter is off; TRITON_INTERPRET=1 turns it on")
    return _beside("shim")


@pytest.fixture(scope="module")
def tagged(shim: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return shim.load(tmp_path_factory.mktemp("tagged"))["tagged"]


@pytest.fixture(scope="module")
def lockstep(shim: ModuleType) -> Callable[..., Any]:
    return _beside("lockstep").lockstep


def _ints(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def _call(voice: Checkpoint, work: Any, steps: int | list[int], **fields: Any) -> Call:
    """Streams at their start, a lane to each; what no lane is to touch is no zero."""
    B, T, _ = work.uniform_BT2.shape
    call = Call(
        h_BH=torch.zeros(B, voice.config.model.hidden),
        code_B2=torch.tensor([[128, 0]] * B, dtype=torch.int32),
        sample_B=torch.zeros(B, dtype=torch.int64),
        memory_B=torch.zeros(B, dtype=torch.float64),
        stream_L=torch.arange(B, dtype=torch.int32),
        steps_L=torch.full((B,), 0, dtype=torch.int32) + torch.tensor(steps, dtype=torch.int32),
        start=0,
        gates_BNG=work.gates_BNG,
        temperature_B=torch.ones(B),
        codes_BT2=torch.full((B, T, 2), 77, dtype=torch.uint8),
        audio_BT=torch.full((B, T), float("nan")),
        uniform_BT2=torch.from_numpy(work.uniform_BT2),
    )
    return replace(call, **fields)


def _scoring(voice: Checkpoint, work: Any, codes_BT2: np.ndarray) -> Call:
    logits = torch.full((*codes_BT2.shape, 256), float("nan"))
    known = {"uniform_BT2": None, "known_BT2": torch.from_numpy(codes_BT2), "logits_BT2Q": logits}
    return _call(voice, work, codes_BT2.shape[1], **known)


def _outcome(call: Call) -> dict[str, torch.Tensor]:
    return {name: getattr(call, name).clone() for name in WRITTEN}


def _same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name].nan_to_num(9.0), two[name].nan_to_num(9.0)) for name in one)


def _judge(voice: Checkpoint, work: Any, call: Call, ctas: int, temperature: float = 1.0) -> None:
    """Holds what a whole launch drew to the reference, which takes the same codes."""
    exact = reference.Synthesizer(weights.rounded(voice, "bfloat16"), len(call.sample_B))
    codes = call.codes_BT2.numpy()
    logits = np.stack(exact.score(work.gates_BNG, codes), axis=2) / temperature
    mass = np.exp(logits - logits.max(-1, keepdims=True))
    cdf = np.cumsum(mass, -1) / mass.sum(-1, keepdims=True)
    drawn = np.minimum((cdf <= work.uniform_BT2[..., None]).sum(-1), 255)
    # each CTA rounds its part of a logit by half a unit; an edge moves by half of a logit's error
    slack = (ctas * 2.0**-21 + 1e-5) / temperature / 2
    for place in map(tuple, np.argwhere(drawn != codes)):
        low, high = sorted((drawn[place], int(codes[place])))
        assert np.abs(cdf[place][low:high] - work.uniform_BT2[place]).max() <= slack
    after = exact.state()
    assert np.abs(call.h_BH.numpy() - after["h"]).max() <= 1e-5
    assert (call.code_B2.numpy() == after["code"]).all()
    assert (call.sample_B.numpy() == after["sample"]).all()
    assert (call.memory_B.numpy() == after["memory"]).all()
    for b, codes_T2 in enumerate(codes):
        y_T = audio.decode(codes_T2)
        x_T, _ = audio.de_emphasis(y_T, voice.config.model.pre_emphasis)
        assert (call.audio_BT[b].numpy() == np.clip(x_T, -1, 32767 / 32768).astype("f4")).all()


SHAPES = [
    pytest.param({"hidden": 32, "projection": 16}, 1, id="one CTA"),
    pytest.param({"hidden": 32, "conditioning_hop_samples": 4}, 2, id="two CTAs"),
    pytest.param({"hidden": 20, "projection": 7, "conditioning_hop_samples": 1}, 4, id="odd"),
    pytest.param({"hidden": 6, "projection": 3, "pre_emphasis": 0.0}, 3, id="idle CTA"),
    pytest.param({"hidden": 16, "input": "scalar"}, 2, id="scalar"),
]


@pytest.mark.parametrize(("fields", "ctas"), SHAPES)
def test_draws_what_the_reference_draws(
    fields: dict[str, Any],
    ctas: int,
    tagged: Any,
    lockstep: Any,
    make_voice: Callable[..., Checkpoint],
    make_work: Callable[..., Any],
) -> None:
    voice = make_voice(**fields)
    work = make_work(voice, 2, 8)
    kernel, call = tagged.Tagged(voice, "cpu", ctas, 2, LOOKS), _call(voice, work, 8)
    # one CTA finds all that it waits for
    with nullcontext() if ctas == 1 else lockstep(ctas):
        kernel.launch(call)
    kernel.check()
    _judge(voice, work, call, ctas)


def test_a_temperature_belongs_to_a_stream(
    tagged: Any, make_voice: Callable[..., Checkpoint], make_work: Callable[..., Any]
) -> None:
    voice = make_voice(hidden=16)
    work = make_work(voice, 2, 8)
    call = _call(voice, work, 8, temperature_B=torch.tensor([0.5, 2.0]))
    tagged.Tagged(voice, "cpu", 1, 2).launch(call)
    for b, temperature in enumerate((0.5, 2.0)):
        row = slice(b, b + 1)
        of_b = replace(call, **{name: getattr(call, name)[row] for name in WRITTEN})
        alone = replace(work, gates_BNG=work.gates_BNG[row], uniform_BT2=work.uniform_BT2[row])
        _judge(voice, alone, of_b, 1, temperature)


def test_chunks_are_the_whole(
    tagged: Any, make_voice: Callable[..., Checkpoint], make_work: Callable[..., Any]
) -> None:
    voice = make_voice(hidden=16, conditioning_hop_samples=2)
    work = make_work(voice, 1, 9)
    kernel, whole, parts = tagged.Tagged(voice, "cpu", 1), *(_call(voice, work, 9) for _ in "ab")
    kernel.launch(whole)
    for start, steps in ((0, 1), (1, 4), (5, 2), (7, 2)):
        kernel.launch(replace(parts, start=start, steps_L=_ints([steps])))
    assert _same(_outcome(whole), _outcome(parts))


def test_a_run_that_begins_within_a_hop(
    tagged: Any, make_voice: Callable[..., Checkpoint], make_work: Callable[..., Any]
) -> None:
    voice = make_voice(hidden=16, conditioning_hop_samples=4)
    work = make_work(voice, 1, 8)
    kernel, whole = tagged.Tagged(voice, "cpu", 1), _call(voice, work, 8)
    first = _call(voice, work, 3)
    kernel.launch(whole)
    kernel.launch(first)
    # another run: sample 3 is its sample 0, and its first row is that of samples 0 to 3
    fields = {name: getattr(first, name) for name in ("h_BH", "code_B2", "sample_B", "memory_B")}
    later = _call(voice, replace(work, uniform_BT2=work.uniform_BT2[:, 3:].copy()), 5, **fields)
    kernel.launch(later)
    assert torch.equal(later.codes_BT2, whole.codes_BT2[:, 3:])
    assert torch.equal(later.audio_BT, whole.audio_BT[:, 3:])


def test_the_number_of_ctas_moves_logits_by_roundings(
    tagged: Any,
    lockstep: Any,
    make_voice: Callable[..., Checkpoint],
    make_work: Callable[..., Any],
) -> None:
    voice = make_voice(hidden=32, projection=15)
    work = make_work(voice, 1, 6)
    drawn, logits, h = [], [], []
    for ctas in (1, 2, 4):
        kernel = tagged.Tagged(voice, "cpu", ctas, limit=LOOKS)
        draws = _call(voice, work, 6)
        with nullcontext() if ctas == 1 else lockstep(7):
            kernel.launch(draws)
            known = _scoring(voice, work, draws.codes_BT2.numpy())
            kernel.launch(known)
        drawn.append(draws.codes_BT2)
        logits.append(known.logits_BT2Q)
        h.append(draws.h_BH)
        # taking known codes leaves the state where drawing them left it
        assert torch.equal(known.h_BH, draws.h_BH)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    # parts are rounded to 2^-20 apart, and in float32 where they are summed
    assert (logits[0] - logits[1]).abs().max() <= 2 * 2**-21 + 2e-6
    assert (logits[0] - logits[2]).abs().max() <= 4 * 2**-21 + 2e-6
    assert torch.equal(h[0], h[2])


@pytest.mark.parametrize("scale", (1, 2000))
def test_known_codes_give_the_logits(
    scale: int,
    tagged: Any,
    make_voice: Callable[..., Checkpoint],
    make_work: Callable[..., Any],
) -> None:
    voice = make_voice(hidden=16)
    louder = {f"O{i}.weight": scale * voice.tensors[f"O{i}.weight"] for i in (2, 4)}
    voice = replace(voice, tensors=dict(voice.tensors) | louder)
    work = make_work(voice, 2, 5)
    codes = np.random.default_rng(3).integers(0, 256, (2, 5, 2)).astype(np.uint8)
    call = _scoring(voice, work, codes)
    tagged.Tagged(voice, "cpu", 1, 2).launch(call)
    exact = reference.Synthesizer(weights.rounded(voice, "bfloat16"), 2)
    expected = np.stack(exact.score(work.gates_BNG, codes), axis=2)
    assert np.abs(call.logits_BT2Q.numpy() - expected).max() <= 1e-5 + 1e-6 * np.abs(expected).max()
    assert scale == 1 or np.abs(expected).max() > 1e4
    assert (call.codes_BT2.numpy() == codes).all()
    assert np.abs(call.h_BH.numpy() - exact.state()["h"]).max() <= 1e-5
    # the same voice draws: a peak is all of the mass
    drawn = _call(voice, work, 5)
    tagged.Tagged(voice, "cpu", 1, 2).launch(drawn)
    assert torch.isfinite(drawn.audio_BT).all()


def test_lanes_meet_neither_each_other_nor_other_streams(
    tagged: Any,
    lockstep: Any,
    make_voice: Callable[..., Checkpoint],
    make_work: Callable[..., Any],
) -> None:
    voice = make_voice(hidden=16, conditioning_hop_samples=2)
    work = make_work(voice, 4, 5)
    rng = np.random.default_rng(5)
    state = {
        "h_BH": torch.from_numpy(rng.uniform(-1, 1, (4, 16))).float(),
        "code_B2": torch.from_numpy(rng.integers(0, 256, (4, 2))).int(),
        # a frozen stream may lie anywhere
        "sample_B": torch.tensor([3, 100, 7, 4]),
        "memory_B": torch.from_numpy(rng.uniform(-1, 1, 4)),
    }

    def started(streams: list[int], steps: list[int]) -> Call:
        copies = {name: tensor.clone() for name, tensor in state.items()}
        return _call(voice, work, 0, **copies, stream_L=_ints(streams), steps_L=_ints(steps))

    before = _outcome(started([0], [0]))
    together = started([2, 1, 0], [4, 0, 2])
    kernel = tagged.Tagged(voice, "cpu", 2, 3, LOOKS)
    with lockstep(11):
        kernel.launch(together)
    after = _outcome(together)
    for frozen in (1, 3):
        assert _same(
            {k: v[frozen] for k, v in before.items()}, {k: v[frozen] for k, v in after.items()}
        )
    for stream, steps in ((2, 4), (0, 2)):
        alone = started([stream], [steps])
        with lockstep(12):
            kernel.launch(alone)
        single = _outcome(alone)
        assert _same(
            {k: v[stream] for k, v in single.items()}, {k: v[stream] for k, v in after.items()}
        )
        assert torch.isnan(alone.audio_BT[stream, steps:]).all()
        assert (alone.codes_BT2[stream, steps:] == 77).all()


def test_a_wait_for_a_cta_that_never_comes_ends(
    tagged: Any,
    lockstep: Any,
    make_voice: Callable[..., Checkpoint],
    make_work: Callable[..., Any],
) -> None:
    voice = make_voice(hidden=16)
    work = make_work(voice, 1, 3)
    kernel, lost = tagged.Tagged(voice, "cpu", 2, limit=LOOKS), _call(voice, work, 3)
    kernel.limit = 3
    # without lockstep the second program begins when the first has ended
    kernel.launch(lost)
    with pytest.raises(RuntimeError, match="waited in vain for one of its CTAs; the states of"):
        kernel.check()
    # it is said once, and the next launch knows nothing of it
    kernel.check()
    kernel.limit = LOOKS
    call = _call(voice, work, 3)
    with lockstep(1):
        kernel.launch(call)
    kernel.check()
    _judge(voice, work, call, 2)


COARSE, FINE = "gather(word_ptr, epoch", "gather(word_ptr + HP, epoch"
MUTANTS = {
    "the epoch stays": {
        "publish(unit_ptr, h_c, epoch)": "publish(unit_ptr, h_c, epoch * 0 + 1)",
        COARSE: "gather(word_ptr, epoch * 0 + 1",
    },
    "the epoch stays, fine": {
        "publish(unit_ptr + HP, h_f, epoch)": "publish(unit_ptr + HP, h_f, epoch * 0 + 1)",
        FINE: "gather(word_ptr + HP, epoch * 0 + 1",
    },
    "the sum before is forgotten": {"value, before_c = agree": "value, forgotten = agree"},
    "one publication is skipped": {"publish(unit_ptr + HP, h_f, epoch)": "pass"},
    "one contribution is skipped": {"contribute(part_ptr, part)": "pass"},
    "the count is short": {"agree(sum_ptr, before_c, N,": "agree(sum_ptr, before_c, N - 1,"},
    "both halves share a word": {
        "publish(unit_ptr + HP, h_f, epoch)": "publish(unit_ptr, h_f, epoch)",
        FINE: "gather(word_ptr, epoch",
    },
    "both halves share a sum": {
        "contribute(part_ptr + 256, part)": "contribute(part_ptr, part)",
        "agree(sum_ptr + 256, before_f": "agree(sum_ptr, before_f",
    },
    "padding is awaited": {"word % (N * U)": "word"},
    "groups share words": {"words_ptr + lane * 2 * HP + unit": "words_ptr + unit"},
    "the epoch is not looked at": {
        "while (gl.sum(((word >> 32) != epoch).to(gl.int32), 0) > 0)": "while (looks < 0)",
        "if gl.sum(((word >> 32) != epoch).to(gl.int32), 0) > 0:": "if looks < 0:",
    },
    "the words are not cleared": {"self.words.zero_()": "pass"},
}


def _survives(tagged: Any, lockstep: Any, voice: Checkpoint, work: Any, seed: int) -> bool:
    """Whether two launches, of five samples and of one, go well on groups of two CTAs."""
    streams = len(work.gates_BNG)
    kernel, call = tagged.Tagged(voice, "cpu", 2, streams), _call(voice, work, 5)
    try:
        # some 900 accesses a stream are enough
        with lockstep(seed, 2000 * streams):
            kernel.launch(call)
            kernel.launch(replace(call, start=5, steps_L=_ints([1] * streams)))
        kernel.check()
        _judge(voice, work, call, 2)
    except (RuntimeError, AssertionError) as error:
        # either the programs wait for ever, or they draw what the reference doesn't
        assert isinstance(error, AssertionError) or "didn't end within" in str(error)
        return False
    return True


@pytest.fixture(scope="module")
def small(make_voice: Callable[..., Checkpoint]) -> Checkpoint:
    return make_voice(hidden=12, projection=6)


@pytest.mark.parametrize("seed", range(6))
def test_the_protocol_holds(
    seed: int, tagged: Any, lockstep: Any, small: Checkpoint, make_work: Callable[..., Any]
) -> None:
    assert _survives(tagged, lockstep, small, make_work(small, 1 + seed % 2, 6), seed)


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_protocol_is_found(
    mutant: str,
    shim: ModuleType,
    lockstep: Any,
    small: Checkpoint,
    make_work: Callable[..., Any],
    tmp_path: Path,
) -> None:
    broken = shim.load(tmp_path, MUTANTS[mutant])["tagged"]
    work = make_work(small, 2 if "groups" in mutant else 1, 6)
    assert not any(_survives(broken, lockstep, small, work, seed) for seed in SEEDS)


def test_voices_and_calls_that_do_not_fit(
    tagged: Any, make_voice: Callable[..., Checkpoint], make_work: Callable[..., Any]
) -> None:
    voice = make_voice(hidden=16)
    with pytest.raises(ValueError, match="a group has at least 1 CTA, got 0"):
        tagged.Tagged(voice, "cpu", 0)
    with pytest.raises(ValueError, match="a share of this voice has 204800; give more CTAs"):
        tagged.Tagged(make_voice(hidden=256), "cpu", 2)
    loud = dict(voice.tensors) | {"O4.weight": 2e7 * voice.tensors["O4.weight"]}
    with pytest.raises(ValueError, match=r"the logits of O4 may reach .* use another kernel"):
        tagged.Tagged(replace(voice, tensors=loud), "cpu")
    with pytest.raises(ValueError, match="expected at most 1 lanes, got 2"):
        tagged.Tagged(voice, "cpu").launch(_call(voice, make_work(voice, 2, 1), 1))
