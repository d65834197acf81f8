"""A subscale voice makes an utterance as it scores it, on every backend that has it."""

import importlib.util
import os
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wavernn import kernels
from wavernn.audio import de_emphasis, decode
from wavernn.errors import BackendUnavailable
from wavernn.kernels import cpu_subscale, native, reference_subscale
from wavernn.kernels.gpu import subscale, weights
from wavernn.rng import uniforms
from wavernn.subscale import Order

# this folder is no package
_spec = importlib.util.spec_from_file_location("lanes", Path(__file__).with_name("lanes.py"))
lanes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lanes)
oracle = lanes.oracle

ENGINES = {
    "reference": (reference_subscale.Synthesizer, {}),
    "reference-float32": (reference_subscale.Synthesizer, {"format": "float32"}),
} | {
    f"cpu-{format}-{isa}": (cpu_subscale.Synthesizer, {"format": format, "isa": isa})
    for format in ("int8", "float32")
    for isa in ("avx512vnni", "avx512", "avx2", "neon", "baseline")
}
ENGINES["gpu"] = (subscale.Synthesizer, {})
# U, F and layers
SIZES = [(2, 0, 1), (4, 2, 3), (8, 3, 2)]
U = SIZES[1][0]


@pytest.fixture(params=list(ENGINES))
def engine(request, absent):
    kind, options = ENGINES[request.param]
    if "isa" in options:
        reason = cpu_subscale.unavailable()
        if reason is not None:
            absent("cpu", reason)
        if options["isa"] not in native.isas():
            pytest.skip(f"this machine doesn't run {options['isa']}")
    if request.param == "gpu" and kernels.unavailable("gpu", 2) is not None:
        # without a GPU the kernel is interpreted
        if importlib.util.find_spec("triton") is None:
            absent("gpu", "triton isn't installed")
        if os.environ.get("TRITON_INTERPRET") != "1":
            absent("gpu", kernels.unavailable("gpu", 2))
        options = {"device": "cpu", "ctas": 1}
        request.getfixturevalue("interpreter")
    return Engine(kind, options)


@dataclass
class Engine:
    kind: type
    options: dict

    def __call__(self, voice, **more):
        return self.kind(voice, **self.options, **more)

    def few(self, samples):
        """So many samples, or what an interpreter does in as long."""
        return min(samples, 42) if self.options.get("device") == "cpu" else samples


@pytest.fixture
def interpreter(monkeypatch):
    """Triton's, in a third of the time."""
    from triton.runtime import interpreter

    options = replace(interpreter.interpreter_builder.options, sanitize_overflow=False)
    monkeypatch.setattr(interpreter.interpreter_builder, "options", options)
    # it makes the language an interpreted one once a launch
    with lanes.beside("lockstep").lockstep():
        yield


def make(make_voice, size=SIZES[1], **fields):
    U, F, layers = size
    sizes = {"subscale": U, "subscale_horizon": F, "context_layers": layers}
    sizes |= {"context_channels": 8, "conditioning_hop_samples": 8}
    voice = make_voice(**(sizes | fields))
    rng, tensors = np.random.default_rng(5), dict(voice.tensors)
    for name in sorted(tensors):
        if name == "X" or name.startswith("context."):
            shape = tensors[name].shape
            scale = 0.3 if name.endswith(("bias", "lanes")) else shape[1:].numel() ** -0.5
            tensors[name] = torch.from_numpy(rng.normal(0, scale, shape)).float()
    return replace(voice, tensors=tensors)


@dataclass
class Work:
    gates_NG: torch.Tensor
    uniform_T2: np.ndarray
    hop: int

    @classmethod
    def of(cls, voice, samples, seed=1):
        hop, G = voice.config.model.conditioning_hop_samples, voice.config.model.gate_rows
        noise = np.random.default_rng(seed).normal(0, 1, (-(-samples // hop), G))
        return cls(torch.from_numpy(noise).float(), uniforms(seed, 0, samples), hop)

    def rows(self, start, stop):
        return self.gates_NG[start // self.hop : max(stop - 1, start) // self.hop + 1]

    def run(self, synthesizer, cuts=()):
        """Codes that come of each piece."""
        ends = [*cuts, len(self.uniform_T2)]
        starts = [0, *cuts]
        return [
            synthesizer.run(self.rows(a, b), self.uniform_T2[a:b], b == ends[-1] and i == len(cuts))
            for i, (a, b) in enumerate(zip(starts, ends, strict=True))
        ]


def teacher_forced(voice, work, codes_T2, format="float64"):
    """Logits [T, 2, Q] in float64, all sub-tensors at once, each a stream of the plain equations.

    For int8 and float16 they are those of the rounded weights and activations.
    """
    if format == "float16":
        voice = weights.rounded(voice, format)
    model, U, T = voice.model(torch.float64), voice.config.model.subscale, len(codes_T2)
    steps = -(-T // U)
    context = lanes.half_context(voice) if format == "float16" else model.context
    at = torch.arange(-context.before_samples, U * steps + context.after_samples)
    inside = (at >= 0) & (at < T)
    codes = torch.from_numpy(codes_T2.astype(np.int64))[at.clamp(0, T - 1)]
    around = torch.cat((codes, inside[:, None].long()), dim=1)[None]
    with torch.no_grad():
        y_IUC = context(around, model.rows[0])
    rows = (torch.arange(U * steps) // work.hop).clamp_max(len(work.gates_NG) - 1)
    gates_IUG = work.gates_NG.double()[rows].view(steps, U, -1)
    given_UIG = torch.cat((gates_IUG, y_IUC), dim=-1).transpose(0, 1)
    known_UI2 = codes[context.before_samples :][: U * steps].view(steps, U, 2).transpose(0, 1)
    kind = {"int8": lanes.Quantised, "float16": lanes.Half}.get(format, lanes.Exact)
    judge = oracle.Oracle(voice, kind(voice))
    # each sample of a sub-tensor has a row of its own
    judge.hop = 1
    _, logits_UI2Q, _ = judge(Rows(given_UIG), codes_BT2=known_UI2.numpy())
    return logits_UI2Q.swapaxes(0, 1).reshape(U * steps, 2, -1)[:T]


@dataclass
class Rows:
    gates_BNG: torch.Tensor


LENGTHS = [1, 3, 6, 37, 101]
# all lengths of one size, and of the others one that ends in the midst of a column
CASES = [(SIZES[1], n) for n in LENGTHS] + [(SIZES[0], 101), (SIZES[2], 101)]


# int8, float16: activations may round the other way where sums are float32
SLACK = {"float64": 1e-10, "float32": 5e-5, "float16": 2e-3, "int8": 2e-2}
# the share of samples that such an activation may change
FLIPPED = {"int8": 0.1, "float16": 0.01}


@pytest.mark.parametrize(("size", "samples"), CASES, ids=str)
def test_known_codes_have_the_logits_of_the_whole_utterance(engine, make_voice, size, samples):
    voice, samples = make(make_voice, size), engine.few(samples)
    work = Work.of(voice, samples)
    codes_T2 = np.random.default_rng(3).integers(0, 256, (samples, 2), np.uint8)
    synthesizer = engine(voice)
    logits_T2Q = np.stack(synthesizer.score(work.gates_NG, codes_T2), axis=1)
    expected = teacher_forced(voice, work, codes_T2, synthesizer.format)
    assert np.abs(logits_T2Q - expected).max() < SLACK[synthesizer.format]


def test_the_torch_modules_score_as_the_equations_do(make_voice):
    # whole frames, and the conditioner of the voice itself
    voice = make(make_voice)
    frames, hop = 2, voice.config.mel.hop_samples
    model, random = voice.model(torch.float64), np.random.default_rng(6)
    mel_1NM = torch.from_numpy(random.normal(-5, 2, (1, frames, voice.config.mel.bands)))
    padded = model.conditioner.pad(mel_1NM)
    codes_T2 = random.integers(0, 256, (frames * hop, 2), np.uint8)
    with torch.no_grad():
        gates_NG = model.gate_input(padded)[0]
    work = Work(gates_NG, uniforms(1, 0, len(codes_T2)), 8)
    expected = teacher_forced(voice, work, codes_T2)
    context, T = model.context, len(codes_T2)
    around = torch.full((1, context.before_samples + T + context.after_samples, 3), 0)
    around[..., 0] = 128
    at = slice(context.before_samples, context.before_samples + T)
    around[0, at, :2] = torch.from_numpy(codes_T2.astype(np.int64))
    around[0, at, 2] = 1
    past = around[:, at.start - U : at.stop - U, :2]
    zero = torch.zeros(1, voice.config.model.state_size, dtype=torch.float64)
    with torch.no_grad():
        coarse, fine, _ = model(padded, past, around[:, at, :2], zero, around_BW3=around)
    assert np.abs(torch.cat((coarse, fine), 1).numpy() - expected).max() < 1e-5


@pytest.mark.parametrize(("size", "samples"), CASES, ids=str)
def test_what_is_sampled_scores_as_it_was_sampled(engine, make_voice, size, samples):
    voice, samples = make(make_voice, size), engine.few(samples)
    work, synthesizer = Work.of(voice, samples), engine(voice)
    (codes_T2,) = work.run(synthesizer)
    assert codes_T2.shape == (samples, 2)
    # its own scores draw every code again
    logits_T2Q = np.stack(synthesizer.score(work.gates_NG, codes_T2), axis=1)
    assert (oracle.draw(logits_T2Q.astype(np.float64), work.uniform_T2) == codes_T2).all()
    # and so do those of the equations, but for draws that lie within rounding of an edge
    expected = teacher_forced(voice, work, codes_T2, synthesizer.format)
    drawn = oracle.draw(expected, work.uniform_T2)
    for t, half in np.argwhere(drawn != codes_T2):
        edges = oracle.cdf(expected[t, half])
        low, high = sorted((int(drawn[t, half]), int(codes_T2[t, half])))
        distance = np.abs(edges[low:high] - work.uniform_T2[t, half]).max()
        assert distance < SLACK[synthesizer.format]
    assert (drawn != codes_T2).sum() <= FLIPPED.get(synthesizer.format, 0) * samples


def test_sixteen_lanes_of_odd_sizes_score_and_draw_as_the_equations(engine, make_voice):
    sizes = {"hidden": 36, "projection": 20, "context_channels": 12}
    voice = make(make_voice, (16, 1, 2), conditioning_hop_samples=16, **sizes)
    work, synthesizer = Work.of(voice, engine.few(150)), engine(voice)
    (codes_T2,) = work.run(synthesizer)
    logits_T2Q = np.stack(synthesizer.score(work.gates_NG, codes_T2), axis=1)
    expected = teacher_forced(voice, work, codes_T2, synthesizer.format)
    assert np.abs(logits_T2Q - expected).max() < SLACK[synthesizer.format]
    assert (oracle.draw(logits_T2Q.astype(np.float64), work.uniform_T2) == codes_T2).all()


CUTS = [(), (0, 1, 2, 3), (7, 8, 9, 60), (64,), tuple(range(1, 101, 3))]


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("size", SIZES[1:], ids=str)
def test_an_utterance_is_the_same_however_it_is_cut(engine, make_voice, size, cuts):
    voice, samples = make(make_voice, size), engine.few(101)
    cuts = [cut for cut in cuts if cut < samples]
    work, synthesizer = Work.of(voice, samples), engine(voice)
    (whole,) = work.run(engine(voice))
    pieces = work.run(synthesizer, cuts)
    assert (np.concatenate(pieces) == whole).all()
    # each comes out as soon as it can, and never later than is stated
    order, given, taken = Order(*size[:2]), 0, 0
    for piece, end in zip(pieces[:-1], cuts, strict=True):
        given, taken = end, taken + len(piece)
        assert taken == min(order.made(-(-given // size[0])), given)
        assert taken >= given - order.lookahead_samples
    # a new utterance has nothing of the last one
    synthesizer.reset()
    assert (np.concatenate(work.run(synthesizer, cuts[:1])) == whole).all()


def test_scoring_leaves_nothing_behind(engine, make_voice):
    voice = make(make_voice)
    work, synthesizer = Work.of(voice, 40), engine(voice)
    (codes_T2,) = work.run(synthesizer)
    logits = synthesizer.score(work.gates_NG, codes_T2)
    again = synthesizer.score(work.gates_NG, codes_T2)
    assert all((a == b).all() for a, b in zip(logits, again, strict=True))
    synthesizer.reset()
    assert (work.run(synthesizer)[0] == codes_T2).all()


def test_speaking_is_sampling_with_the_draws_of_the_seed(engine, make_voice):
    voice, seed = make(make_voice), 12345678901
    work = Work.of(voice, 90)
    work.uniform_T2 = uniforms(seed, 0, 90)
    (codes_T2,) = work.run(engine(voice))
    expected, _ = de_emphasis(decode(codes_T2), voice.config.model.pre_emphasis)
    synthesizer = engine(voice)
    parts = [synthesizer.speak(work.rows(0, 50), 50, seed)]
    parts.append(synthesizer.speak(work.rows(50, 90), 40, seed))
    parts.append(synthesizer.speak(work.gates_NG[:0], 0, seed, last=True))
    spoken = np.concatenate(parts)
    assert spoken.dtype == np.float32
    assert (spoken == np.clip(expected, -1, 32767 / 32768).astype(np.float32)).all()


def test_the_temperature_divides_the_logits(engine, make_voice):
    voice = make(make_voice)
    work, synthesizer = Work.of(voice, 60), engine(voice)
    codes_T2 = synthesizer.run(work.gates_NG, work.uniform_T2, True, 0.5)
    logits_T2Q = np.stack(synthesizer.score(work.gates_NG, codes_T2), axis=1).astype(np.float64)
    assert (oracle.draw(logits_T2Q / 0.5, work.uniform_T2) == codes_T2).all()
    synthesizer.reset()
    assert (synthesizer.run(work.gates_NG, work.uniform_T2, True) != codes_T2).any()


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("format", ["int8", "float32"])
def test_threads_change_no_bit(isas, make_voice, format, threads):
    voice = make(make_voice, (8, 3, 2))
    work = Work.of(voice, 101)
    (alone,) = work.run(cpu_subscale.Synthesizer(voice, format))
    together = cpu_subscale.Synthesizer(voice, format, threads)
    assert (np.concatenate(work.run(together, (30, 31))) == alone).all()


@pytest.mark.parametrize("format", ["int8", "float32"])
def test_each_call_may_have_other_threads(isas, make_voice, format):
    voice, counts = make(make_voice, (8, 3, 2)), [3, 1, 2, 3, 1, 3, 2, 2, 3]
    work = Work.of(voice, 900)
    (alone,) = work.run(cpu_subscale.Synthesizer(voice, format))
    synthesizer = cpu_subscale.Synthesizer(voice, format, 3)
    synthesizer.pace.threads = iter(counts).__next__
    assert (np.concatenate(work.run(synthesizer, range(100, 900, 100))) == alone).all()


def test_helpers_that_do_not_come_are_not_waited_for(isas, make_voice):
    class Asleep:
        asked = 0

        def submit(self, *call):
            self.asked += 1
            return Future()

    voice = make(make_voice, (8, 3, 2))
    work, synthesizer = Work.of(voice, 101), cpu_subscale.Synthesizer(voice, threads=2)
    (alone,) = work.run(cpu_subscale.Synthesizer(voice))
    synthesizer._pool = Asleep()
    assert (work.run(synthesizer)[0] == alone).all()
    assert synthesizer._pool.asked == 1


@pytest.mark.parametrize("format", ["int8", "float32"])
def test_instruction_sets_change_no_bit(isas, make_voice, format):
    voice = make(make_voice, (16, 1, 2), conditioning_hop_samples=16, hidden=36)
    work = Work.of(voice, 150)
    codes = [work.run(cpu_subscale.Synthesizer(voice, format, isa=isa))[0] for isa in isas]
    assert all((other == codes[0]).all() for other in codes)


def test_pruned_matrices_change_nothing_but_the_work(engine, make_voice):
    voice = make(make_voice)
    mask = torch.from_numpy(np.random.default_rng(1).random((96 // 16, 8 // 4)) < 0.4)
    X = voice.tensors["X"] * mask.repeat_interleave(16, 0).repeat_interleave(4, 1)
    voice = replace(voice, tensors={**voice.tensors, "X": X})
    work, synthesizer = Work.of(voice, 50), engine(voice)
    codes_T2 = np.random.default_rng(3).integers(0, 256, (50, 2), np.uint8)
    logits_T2Q = np.stack(synthesizer.score(work.gates_NG, codes_T2), axis=1)
    expected = teacher_forced(voice, work, codes_T2, synthesizer.format)
    assert np.abs(logits_T2Q - expected).max() < SLACK[synthesizer.format]


BAD = [
    (lambda s, w: s.run(w.gates_NG[:3], w.uniform_T2), r"at least \[13, 96\], got \[3, 96\]"),
    (lambda s, w: s.run(w.gates_NG[:, :5], w.uniform_T2), r"\[13, 96\], got \[13, 5\]"),
    (lambda s, w: s.run(w.gates_NG, w.uniform_T2 + 1), "draws in \\[0, 1\\)"),
    (lambda s, w: s.run(w.gates_NG, w.uniform_T2, False, 0.0), "positive and finite"),
    (lambda s, w: s.score(w.gates_NG, w.uniform_T2), "codes as uint8"),
    (lambda s, w: [s.run(w.gates_NG, w.uniform_T2, True) for _ in "ab"], "utterance has ended"),
]


@pytest.mark.parametrize(("call", "sentence"), BAD)
def test_what_cannot_be_meant_is_refused(engine, make_voice, call, sentence):
    voice = make(make_voice)
    with pytest.raises(ValueError, match=sentence):
        call(engine(voice), Work.of(voice, 100))


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_a_subscale_voice_is_no_stream_among_others(make_voice, name):
    with pytest.raises(BackendUnavailable, match="a voice of subscale 4 is spoken an utterance"):
        kernels.load(name)(make(make_voice), 2)


def test_backends_are_had_by_name():
    with pytest.raises(BackendUnavailable, match="unknown backend tpu"):
        kernels.load_subscale("tpu", 8)
    assert kernels.load_subscale("reference", 8) is reference_subscale.Synthesizer
