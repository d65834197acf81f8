"""A fused voice makes an utterance as it scores it, on every backend that has it."""

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wavernn import kernels
from wavernn.audio import de_emphasis, decode
from wavernn.cost import channel_bytes
from wavernn.errors import BackendUnavailable
from wavernn.kernels import cpu_fused, memory, native, reference_fused
from wavernn.rng import uniforms
from wavernn.subscale import Order

# this folder is no package
_spec = importlib.util.spec_from_file_location("joint", Path(__file__).with_name("joint.py"))
joint = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(joint)

ENGINES = {
    "reference": (reference_fused.Synthesizer, {}),
    "reference-float32": (reference_fused.Synthesizer, {"format": "float32"}),
} | {
    f"cpu-{format}-{isa}": (cpu_fused.Synthesizer, {"format": format, "isa": isa})
    for format in ("int8", "float32")
    for isa in ("avx512vnni", "avx512", "avx2", "neon", "baseline")
}
# parts of one group, of less than one, and of several
SIZES = [(128, 16), (40, 24), (256, 20)]
LENGTHS = [1, 2, 5, 6, 7, 101]
# all lengths of one size, and one of the others
CASES = [(SIZES[1], n) for n in LENGTHS] + [(SIZES[0], 101), (SIZES[2], 101)]
# of the largest error and of the mean; int8: activations may round the other way where sums are
# float32, which is rare
SLACK = {"float64": (1e-10, 1e-10), "float32": (5e-5, 1e-5), "int8": (6e-2, 2e-3)}


@pytest.fixture(params=list(ENGINES))
def engine(request, absent):
    kind, options = ENGINES[request.param]
    if "isa" in options:
        reason = kernels.unavailable("cpu", fused=2)
        if reason is not None:
            absent("cpu", reason)
        if options["isa"] not in native.isas():
            pytest.skip(f"this machine doesn't run {options['isa']}")
    return lambda voice, **more: kind(voice, **options, **more)


def make(make_voice, size=SIZES[1], **fields):
    hidden, projection = size
    sizes = {"hidden": hidden, "projection": projection, "conditioning_hop_samples": 8}
    voice = make_voice(**({"fused": 2} | sizes | fields))
    rng, tensors = np.random.default_rng(5), dict(voice.tensors)
    if voice.config.model.input == "embedding":
        tensors["upper"] = torch.from_numpy(rng.normal(0, 1, tensors["upper"].shape)).float()
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
        starts, ends = [0, *cuts], [*cuts, len(self.uniform_T2)]
        return [
            synthesizer.run(self.rows(a, b), self.uniform_T2[a:b], i == len(cuts))
            for i, (a, b) in enumerate(zip(starts, ends, strict=True))
        ]


def scores(synthesizer, work, codes_T2):
    """Logits [T, 4, 16] that an engine gives known codes."""
    logits = synthesizer.score(work.gates_NG, codes_T2)
    assert all(x.shape == (len(codes_T2), 2, 16) for x in logits)
    return np.concatenate(logits, axis=1)


def expected(voice, work, codes_T2, format="float64"):
    kind = joint.Quantised if format == "int8" else joint.Exact
    return joint.teacher_forced(voice, work, codes_T2, kind)


def check_near(given, wanted, format):
    error, (most, mean) = np.abs(given - wanted), SLACK[format]
    assert error.max() < most and error.mean() < mean


def nibbles(codes_T2):
    return np.stack((codes_T2 >> 4, codes_T2 & 15), axis=-1).reshape(-1, 4)


@pytest.mark.parametrize(("size", "samples"), CASES, ids=str)
def test_known_codes_have_the_logits_of_the_equations(engine, make_voice, size, samples):
    voice = make(make_voice, size)
    work, synthesizer = Work.of(voice, samples), engine(voice)
    codes_T2 = np.random.default_rng(3).integers(0, 256, (samples, 2), np.uint8)
    given = scores(synthesizer, work, codes_T2)
    wanted = expected(voice, work, codes_T2, synthesizer.format)
    check_near(given, wanted, synthesizer.format)


def test_scalar_input_is_run_as_well(engine, make_voice):
    voice = make(make_voice, input="scalar")
    work, synthesizer = Work.of(voice, 30), engine(voice)
    codes_T2 = np.random.default_rng(3).integers(0, 256, (30, 2), np.uint8)
    wanted = expected(voice, work, codes_T2, synthesizer.format)
    given = scores(synthesizer, work, codes_T2)
    check_near(given, wanted, synthesizer.format)


@pytest.mark.parametrize(("size", "samples"), CASES, ids=str)
def test_what_is_sampled_scores_as_it_was_sampled(engine, make_voice, size, samples):
    voice = make(make_voice, size)
    work, synthesizer = Work.of(voice, samples), engine(voice)
    (codes_T2,) = work.run(synthesizer)
    assert codes_T2.shape == (samples, 2) and codes_T2.dtype == np.uint8
    made = nibbles(codes_T2)
    # its own scores draw every nibble again
    drawn, distance = joint.draw(scores(synthesizer, work, codes_T2).astype(float), work.uniform_T2)
    assert (distance[drawn != made] < 1e-6).all() and (drawn != made).sum() <= 1
    # and so do those of the equations, but for draws that lie within rounding of an edge
    wanted = expected(voice, work, codes_T2, synthesizer.format)
    drawn, distance = joint.draw(wanted, work.uniform_T2)
    assert (distance[drawn != made] < SLACK[synthesizer.format][0]).all()
    assert (drawn != made).sum() <= (0 if synthesizer.format != "int8" else samples // 10)


def test_a_byte_is_the_one_of_its_256_levels(make_voice):
    voice = make(make_voice)
    work, synthesizer = Work.of(voice, 40), reference_fused.Synthesizer(voice)
    (codes_T2,) = work.run(synthesizer)
    for n in (0, 17, 38):
        # of each upper nibble what the lower ones would be
        mass_Q = np.empty(256)
        for upper in range(16):
            other = codes_T2.copy()
            other[n, 0] = upper << 4
            c = torch.from_numpy(synthesizer.score(work.gates_NG, other)[0][n])
            one, two = torch.softmax(c, dim=-1).numpy()
            mass_Q[16 * upper : 16 * upper + 16] = one[upper] * two
        assert abs(mass_Q.sum() - 1) < 1e-12
        assert (np.cumsum(mass_Q) <= work.uniform_T2[n, 0]).sum() == codes_T2[n, 0]


CUTS = [(), (0, 1, 2, 3), (7, 8, 9, 60), (64,), tuple(range(1, 101, 3))]


@pytest.mark.parametrize("cuts", CUTS, ids=str)
def test_an_utterance_is_the_same_however_it_is_cut(engine, make_voice, cuts):
    voice = make(make_voice)
    work, synthesizer = Work.of(voice, 101), engine(voice)
    (whole,) = work.run(engine(voice))
    pieces = work.run(synthesizer, cuts)
    assert (np.concatenate(pieces) == whole).all()
    # each comes out as soon as it can, and never later than is stated
    order, taken = Order(2, 2), 0
    for piece, given in zip(pieces[:-1], cuts, strict=True):
        taken += len(piece)
        assert taken == min(order.made(-(-given // 2)), given)
        assert taken >= given - order.lookahead_samples
    # a new utterance has nothing of the last one
    synthesizer.reset()
    assert (np.concatenate(work.run(synthesizer, cuts[:1])) == whole).all()


def test_an_utterance_of_no_samples_is_empty(engine, make_voice):
    voice = make(make_voice)
    work, synthesizer = Work.of(voice, 1), engine(voice)
    empty = synthesizer.run(work.gates_NG[:0], work.uniform_T2[:0], True)
    assert empty.shape == (0, 2)


def test_scoring_leaves_nothing_behind(engine, make_voice):
    voice = make(make_voice)
    work, synthesizer = Work.of(voice, 40), engine(voice)
    (codes_T2,) = work.run(synthesizer)
    logits = scores(synthesizer, work, codes_T2)
    assert (scores(synthesizer, work, codes_T2) == logits).all()
    synthesizer.reset()
    assert (work.run(synthesizer)[0] == codes_T2).all()


def test_speaking_is_sampling_with_the_draws_of_the_seed(engine, make_voice):
    voice, seed = make(make_voice), 12345678901
    work = Work.of(voice, 90)
    work.uniform_T2 = uniforms(seed, 0, 90)
    (codes_T2,) = work.run(engine(voice))
    wanted, _ = de_emphasis(decode(codes_T2), voice.config.model.pre_emphasis)
    synthesizer = engine(voice)
    parts = [synthesizer.speak(work.rows(0, 50), 50, seed)]
    parts.append(synthesizer.speak(work.rows(50, 90), 40, seed))
    parts.append(synthesizer.speak(work.gates_NG[:0], 0, seed, last=True))
    spoken = np.concatenate(parts)
    assert spoken.dtype == np.float32
    assert (spoken == np.clip(wanted, -1, 32767 / 32768).astype(np.float32)).all()


def test_the_temperature_divides_the_logits(engine, make_voice):
    voice = make(make_voice)
    work, synthesizer = Work.of(voice, 60), engine(voice)
    codes_T2 = synthesizer.run(work.gates_NG, work.uniform_T2, True, 0.5)
    logits = scores(synthesizer, work, codes_T2).astype(float)
    drawn, distance = joint.draw(logits / 0.5, work.uniform_T2)
    wrong = drawn != nibbles(codes_T2)
    assert wrong.sum() <= 1 and (distance[wrong] < 1e-6).all()
    synthesizer.reset()
    assert (synthesizer.run(work.gates_NG, work.uniform_T2, True) != codes_T2).any()


@pytest.mark.parametrize("format", ["int8", "float32"])
def test_instruction_sets_change_no_bit(isas, make_voice, format):
    voice = make(make_voice, SIZES[2])
    work = Work.of(voice, 150)
    runs = [cpu_fused.Synthesizer(voice, format, isa=isa) for isa in isas]
    codes, logits = work.run(runs[0])[0], None
    for synthesizer in runs:
        synthesizer.reset()
        assert (work.run(synthesizer)[0] == codes).all()
        own = scores(synthesizer, work, codes)
        assert logits is None or (own == logits).all()
        logits = own


def test_pruned_matrices_change_nothing_but_the_work(engine, make_voice):
    voice = make(make_voice, SIZES[0])
    random, tensors = np.random.default_rng(1), dict(voice.tensors)
    for name in ("R", "O1.weight", "O3.weight"):
        rows, columns = tensors[name].shape
        mask = torch.from_numpy(random.random((rows // 16, columns // 4)) < 0.2)
        tensors[name] = tensors[name] * mask.repeat_interleave(16, 0).repeat_interleave(4, 1)
    voice = replace(voice, tensors=tensors)
    work, synthesizer = Work.of(voice, 50), engine(voice)
    codes_T2 = random.integers(0, 256, (50, 2), np.uint8)
    given = scores(synthesizer, work, codes_T2)
    wanted = expected(voice, work, codes_T2, synthesizer.format)
    check_near(given, wanted, synthesizer.format)


def test_an_utterance_takes_the_memory_that_is_stated(make_voice, isas):
    voice = make(make_voice, SIZES[2])
    one, two = (memory.memory_bytes(voice, n, n) for n in (1, 2))
    engine = cpu_fused.Synthesizer(voice)
    state = engine.h_8U.nbytes + engine.memory_1.nbytes + channel_bytes(voice.config)
    assert two - one == engine._space.nbytes + state


BAD = [
    (lambda s, w: s.run(w.gates_NG[:3], w.uniform_T2), r"at least \[13, 120\], got \[3, 120\]"),
    (lambda s, w: s.run(w.gates_NG[:, :5], w.uniform_T2), r"\[13, 120\], got \[13, 5\]"),
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


@pytest.mark.parametrize("kind", [reference_fused.Synthesizer, cpu_fused.Synthesizer])
def test_formats_and_threads_that_are_not_there_are_refused(make_voice, kind, isas):
    with pytest.raises(BackendUnavailable, match="has no format int3"):
        kind(make(make_voice), "int3")
    if kind is cpu_fused.Synthesizer:
        with pytest.raises(ValueError, match="threads must be at least 1"):
            kind(make(make_voice), threads=0)


@pytest.mark.parametrize("name", ["reference", "cpu"])
def test_a_fused_voice_is_no_stream_among_others(make_voice, name):
    with pytest.raises(BackendUnavailable, match="a fused voice is spoken an utterance at a time"):
        kernels.load(name)(make(make_voice), 2)


def test_backends_without_fused_voices_say_so():
    with pytest.raises(BackendUnavailable, match="the gpu engine doesn't run fused voices; use"):
        kernels.load_subscale("gpu", 1, 2)
    assert kernels.load_subscale("reference", 1, 2) is reference_fused.Synthesizer
