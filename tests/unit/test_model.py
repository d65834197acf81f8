import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear

from wavernn.checkpoint import Checkpoint
from wavernn.config import PRUNABLE, Config, MelConfig, ModelConfig, TrainConfig, matrix_shape
from wavernn.kernels import reference
from wavernn.model import Conditioner, WaveRNN
from wavernn.rng import uniforms

MEL = MelConfig(
    rate_hz=8000, fft_samples=64, window_samples=64, hop_samples=16, bands=5, high_hz=4000
)
FRAMES, STREAMS = 6, 3
SAMPLES = FRAMES * MEL.hop_samples
H, HELD = 16, 8
KINDS = ["embedding", "scalar"]
PRECISIONS = ["float32", "bfloat16"]


def make_model(seed=3, **fields):
    sizes = {"hidden": H, "projection": 8, "embedding": 4, "channels": 12}
    config = ModelConfig(**{**sizes, "conditioning_hop_samples": HELD, **fields})
    torch.manual_seed(seed)
    return WaveRNN(config, MEL)


class Slices:
    """Mels, codes and a state for a batch, as the training loop gives them."""

    def __init__(self, model, dtype=torch.float32):
        torch.manual_seed(4)
        conditioner = model.conditioner
        context = conditioner.history_frames + conditioner.lookahead_frames
        noise = torch.randn(STREAMS, FRAMES + context, MEL.bands)
        self.mel = (conditioner.mean_M + conditioner.deviation_M * noise).to(dtype)
        self.codes = torch.randint(0, 256, (STREAMS, SAMPLES, 2))
        past = torch.randint(0, 256, (STREAMS, 1, 2))
        self.previous = torch.cat((past, self.codes[:, :-1]), dim=1)
        self.h = (torch.rand(STREAMS, model.config.hidden) * 2 - 1).to(dtype)

    def score(self, model, precision="float32"):
        return model(self.mel, self.previous, self.codes, self.h, precision)

    def loss(self, model, precision="float32"):
        coarse, fine, _ = self.score(model, precision)
        c_T, f_T = self.codes.transpose(0, 1).flatten(0, 1).unbind(-1)
        return cross_entropy(coarse.flatten(0, 1), c_T) + cross_entropy(fine.flatten(0, 1), f_T)


def changed(before, after):
    """The samples [T] at which the logits of stream 1 differ; those of the others may not."""
    differs_TB = (before != after).any(-1)
    assert not differs_TB[:, [0, 2]].any()
    return set(differs_TB[:, 1].nonzero().flatten().tolist())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("t", [0, 37, SAMPLES - 1])
@torch.no_grad()
def test_a_coarse_code_reaches_the_fine_logits_of_its_sample(kind, precision, t):
    model = make_model(input=kind)
    slices = Slices(model)
    coarse, fine, _ = slices.score(model, precision)
    slices.codes[1, t, 0] = (slices.codes[1, t, 0] + 128) % 256
    new_coarse, new_fine, _ = slices.score(model, precision)
    # c_t itself: the state carries it on, and the coarse half of that state comes a sample later
    assert changed(fine, new_fine) >= {t}
    assert min(changed(fine, new_fine)) == t
    assert min(changed(coarse, new_coarse), default=SAMPLES) == t + 1


@pytest.mark.parametrize("precision", PRECISIONS)
@torch.no_grad()
def test_a_fine_code_is_only_predicted(precision):
    model = make_model()
    slices = Slices(model)
    coarse, fine, h = slices.score(model, precision)
    slices.codes[:, :, 1] = (slices.codes[:, :, 1] + 128) % 256
    new_coarse, new_fine, new_h = slices.score(model, precision)
    assert torch.equal(coarse, new_coarse)
    assert torch.equal(fine, new_fine)
    assert torch.equal(h, new_h)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("half", [0, 1], ids=["coarse", "fine"])
@pytest.mark.parametrize("t", [0, 37, SAMPLES - 1])
@torch.no_grad()
def test_a_previous_code_reaches_both_heads_and_nothing_before(kind, precision, half, t):
    model = make_model(input=kind)
    slices = Slices(model)
    coarse, fine, _ = slices.score(model, precision)
    slices.previous[1, t, half] = (slices.previous[1, t, half] + 128) % 256
    new_coarse, new_fine, _ = slices.score(model, precision)
    assert min(changed(coarse, new_coarse)) == t
    assert min(changed(fine, new_fine)) == t


@pytest.mark.parametrize("precision", PRECISIONS)
@torch.no_grad()
def test_the_first_state_reaches_both_heads(precision):
    model = make_model()
    slices = Slices(model)
    coarse, fine, _ = slices.score(model, precision)
    slices.h[1] *= -1
    new_coarse, new_fine, _ = slices.score(model, precision)
    assert min(changed(coarse, new_coarse)) == min(changed(fine, new_fine)) == 0


@torch.no_grad()
def test_slices_with_carried_state_are_one_slice():
    model = make_model().double()
    slices = Slices(model, torch.float64)
    coarse, fine, h = slices.score(model)
    context = model.conditioner.history_frames + model.conditioner.lookahead_frames
    state, pieces = slices.h, []
    for start in range(0, FRAMES, 2):
        mel = slices.mel[:, start : start + context + 2]
        at = slice(start * MEL.hop_samples, (start + 2) * MEL.hop_samples)
        *logits, state = model(mel, slices.previous[:, at], slices.codes[:, at], state)
        pieces.append(torch.stack(logits))
    # logits come back as float32
    assert (torch.cat(pieces, dim=1) - torch.stack((coarse, fine))).abs().max() < 1e-6
    assert (state - h).abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_hidden_is_the_papers_cell(kind):
    model = make_model(input=kind).double()
    slices = Slices(model, torch.float64)
    cond = model.conditioner(slices.mel)
    past, now = slices.previous.transpose(0, 1), slices.codes.transpose(0, 1)
    h_TBH = model.hidden(past, now, cond, slices.h)
    R_u, R_r, R_e = model.R.chunk(3)
    I_star = torch.cat((model.I_past, model.fine_rows(model.I_now)), dim=1)
    h = slices.h
    for t in range(SAMPLES):
        c, f, c_now = model.rows
        x = torch.cat((c[past[t, :, 0]], f[past[t, :, 1]], c_now[now[t, :, 0]]), dim=1)
        gates = x @ I_star.T + model.gates(cond[:, t // HELD])
        I_u, I_r, I_e = gates.chunk(3, dim=1)
        u, r = torch.sigmoid(h @ R_u.T + I_u), torch.sigmoid(h @ R_r.T + I_r)
        h = u * h + (1 - u) * torch.tanh(r * (h @ R_e.T) + I_e)
        assert (h_TBH[t] - h).abs().max() < 1e-12


@torch.no_grad()
def test_torchs_gru_takes_the_gates_as_r_u_e():
    model = make_model().double()
    slices = Slices(model, torch.float64)
    cond = model.conditioner(slices.mel)
    past, now = slices.previous.transpose(0, 1), slices.codes.transpose(0, 1)
    index = (past[..., 0], past[..., 1], now[..., 0])
    x = [table[i] for table, i in zip(model.rows, index, strict=True)]
    x = torch.cat((*x, cond.repeat_interleave(HELD, dim=1).transpose(0, 1)), dim=-1)
    I_all = torch.cat((model.I_past, model.fine_rows(model.I_now), model.gates.weight), dim=1)
    gru = nn.GRU(x.shape[-1], H).double()
    gru.bias_hh_l0.zero_()
    # ours are u, r, e
    for place, gate in enumerate((1, 0, 2)):
        theirs, own = (slice(i * H, (i + 1) * H) for i in (place, gate))
        gru.weight_ih_l0[theirs], gru.weight_hh_l0[theirs] = I_all[own], model.R[own]
        gru.bias_ih_l0[theirs] = model.gates.bias[own]
    expected, _ = gru(x, slices.h[None])
    assert (model.hidden(past, now, cond, slices.h) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_forward_pass_scores_a_sampled_run_with_the_logits_that_drew_it(monkeypatch, kind):
    model, drew = make_model(input=kind), []
    draw = reference.inverse_cdf

    def recorded(logits_Q, uniform):
        drew.append(logits_Q)
        return draw(logits_Q, uniform)

    monkeypatch.setattr(reference, "inverse_cdf", recorded)
    config = Config(mel=MEL, model=model.config, train=TrainConfig(slice_samples=SAMPLES))
    synthesizer = reference.Synthesizer(Checkpoint(config, model.state_dict()), 1)
    model.double()
    mel = Slices(model, torch.float64).mel[:1]
    codes = synthesizer.run(model.gate_input(mel), uniforms(0, 0, SAMPLES)[None])
    codes = torch.from_numpy(codes).long()
    previous = torch.cat((torch.tensor([[[128, 0]]]), codes[:, :-1]), dim=1)
    coarse, fine, h = model(mel, previous, codes, torch.zeros(1, H, dtype=torch.float64))
    sampled = torch.stack(drew).view(SAMPLES, 2, 256)
    # logits come back as float32
    assert (sampled - torch.stack((coarse[:, 0], fine[:, 0]), dim=1)).abs().max() < 1e-6
    assert np.abs(synthesizer.state()["h"] - h.numpy()).max() < 1e-12


@pytest.mark.parametrize("lookahead", [0, 1, 2, 3])
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@torch.no_grad()
def test_the_conditioner_sees_the_frames_it_states_and_no_others(layers, lookahead):
    model = make_model(layers=layers, lookahead_frames=lookahead, channels=32).double()
    conditioner, history = model.conditioner, 2 + 2 * layers
    assert conditioner.history_frames == model.config.history_frames == history
    frames = history + lookahead + 3
    mel = torch.randn(1, frames, MEL.bands, dtype=torch.float64)
    padded = conditioner.pad(mel)
    assert padded.shape == (1, history + frames + lookahead, MEL.bands)
    assert torch.equal(padded[:, history : history + frames], mel)
    assert (padded[:, :history] == np.log(1e-5)).all()
    assert (padded[:, history + frames :] == np.log(1e-5)).all()
    cond = conditioner(padded)
    assert cond.shape == (1, frames * 2, 32)
    for frame in range(frames):
        other = mel.clone()
        other[0, frame] += 5
        differs = (conditioner(conditioner.pad(other)) != cond).any(-1).view(frames, 2)
        first, last = max(frame - lookahead, 0), min(frame + history, frames - 1)
        assert differs.any(1).nonzero().flatten().tolist() == list(range(first, last + 1))


def plain_conditioner(w, mel_NM):
    """The conditioner frame by frame; `w` holds its weights by name."""

    def window(name, x, i):
        kernel_COK = w[f"{name}.weight"]
        taps = range(kernel_COK.shape[2])
        return sum(kernel_COK[:, :, k] @ x[i + k] for k in taps) + w[f"{name}.bias"]

    def dense(name, x):
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    x = (mel_NM - w["mean_M"]) / w["deviation_M"]
    x = [torch.relu(window("enter", x, i)) for i in range(len(x) - 4)]
    for layer in range(2):
        # what a layer adds to a frame comes from it and the two before
        wide = [torch.relu(window(f"layers.{layer}", x, i)) for i in range(len(x) - 2)]
        x = [x[i + 2] + dense(f"narrow.{layer}", y) for i, y in enumerate(wide)]
    return torch.cat([torch.relu(dense("spread", torch.relu(y))).view(2, -1) for y in x])


@torch.no_grad()
def test_the_conditioner_is_what_it_says():
    conditioner = make_model(layers=2, lookahead_frames=2).conditioner.double()
    mel_NM = torch.randn(14, MEL.bands, dtype=torch.float64)
    expected = plain_conditioner(conditioner.state_dict(), mel_NM)
    assert (conditioner(mel_NM[None])[0] - expected).abs().max() < 1e-12


@pytest.mark.parametrize("layers", [0, 3])
@torch.no_grad()
def test_each_part_of_the_conditioner_changes_the_output(layers):
    conditioner = make_model(layers=layers).conditioner
    parts = dict(conditioner.named_parameters()) | dict(conditioner.named_buffers())
    assert len(parts) == 6 + 4 * layers
    mel = torch.randn(1, 12, MEL.bands)
    cond = conditioner(mel)
    for part in parts.values():
        kept = part.clone()
        part.add_(0.5 * torch.rand_like(part))
        assert (conditioner(mel) != cond).any()
        part.copy_(kept)
    assert torch.equal(conditioner(mel), cond)


@torch.no_grad()
def test_the_conditioner_starts_from_normalised_mels():
    conditioner = Conditioner(make_model().config, MEL)
    mel = torch.randn(1, 12, MEL.bands)
    cond = conditioner(mel)
    conditioner.mean_M.copy_(torch.arange(5.0))
    conditioner.deviation_M.copy_(torch.arange(5.0) + 1)
    scaled = (mel - np.log(1e-5) / 2) / (-np.log(1e-5) / 4) * conditioner.deviation_M
    assert (conditioner(scaled + conditioner.mean_M) - cond).abs().max() < 1e-5


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind, precision):
    model = make_model(input=kind)
    Slices(model).loss(model, precision).backward()
    for name, parameter in model.named_parameters():
        if kind == "scalar" and name == "rows":
            assert not parameter.requires_grad
        else:
            assert parameter.grad.isfinite().all(), name
            assert (parameter.grad != 0).any(), name


def test_each_table_of_rows_learns_where_it_was_read():
    model = make_model()
    slices = Slices(model)
    slices.loss(model).backward()
    read = (slices.previous[..., 0], slices.previous[..., 1], slices.codes[..., 0])
    for grad_QE, codes in zip(model.rows.grad, read, strict=True):
        learnt = grad_QE.any(dim=1).nonzero().flatten()
        assert learnt.tolist() == sorted(set(codes.flatten().tolist()))


def test_a_scalar_is_the_byte_scaled_to_one():
    rows = make_model(input="scalar").rows
    assert rows.shape == (3, 256, 1)
    expected = torch.linspace(-1, 1, 256, dtype=torch.float64)
    assert (rows[..., 0] - expected).abs().max() < 1e-6


@torch.no_grad()
def test_prunable_matrices_are_views_by_name():
    model = make_model()
    slices, matrices = Slices(model), model.matrices()
    assert tuple(matrices) == PRUNABLE
    assert torch.equal(torch.cat([matrices[f"R_{gate}"] for gate in "ure"]), model.R)
    for name, matrix in matrices.items():
        before = torch.stack(slices.score(model)[:2])
        assert matrix.shape == matrix_shape(model.config, name)
        matrix.zero_()
        assert (torch.stack(slices.score(model)[:2]) != before).any(), name


def test_the_recurrence_starts_orthogonal():
    for part in make_model().R.detach().chunk(3):
        assert (part @ part.T - torch.eye(H)).abs().max() < 1e-5


def plain_hidden_bf16(self, previous_TB2, codes_TB2, cond_BNC, h):
    """The recurrence under autocast, a step at a time, on autograd."""
    x_TBE = self._inputs(previous_TB2, codes_TB2)
    I_star = torch.cat((self.I_past, self.fine_rows(self.I_now)), dim=1)
    cond_TBC = cond_BNC.transpose(0, 1).repeat_interleave(HELD, dim=0)
    gates_TBG = linear(x_TBE, I_star) + self.gates(cond_TBC)
    states = []
    for gates in gates_TBG:
        I_u, I_r, I_e = gates.float().chunk(3, dim=1)
        R_u, R_r, R_e = linear(h, self.R).float().chunk(3, dim=1)
        u, r = torch.sigmoid(R_u + I_u), torch.sigmoid(R_r + I_r)
        h = u * h + (1 - u) * torch.tanh(r * R_e + I_e)
        states.append(h)
    return torch.stack(states)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_as_near_as_plain_autocast(monkeypatch, kind):
    def measure(seed, precision, dtype=torch.float32):
        model = make_model(seed, input=kind).to(dtype)
        loss = Slices(model, dtype).loss(model, precision)
        loss.backward()
        grads = {name: p.grad.double() for name, p in model.named_parameters() if p.requires_grad}
        return {"loss": loss.detach().double(), **grads}

    # the rounding of one model may be lucky, that of several is alike
    seeds = range(6)
    exact = [measure(seed, "float32", torch.float64) for seed in seeds]
    ours = [measure(seed, "bfloat16") for seed in seeds]
    monkeypatch.setattr(WaveRNN, "hidden_bf16", plain_hidden_bf16)
    plain = [measure(seed, "bfloat16") for seed in seeds]
    # a bfloat16 has 8 bits, and whatever is one is off by 2^-9 of itself
    ulp = 2**-9
    for name in exact[0]:
        error, plain_error = (
            sum((a[name] - b[name]).norm() for a, b in zip(some, exact, strict=True))
            for some in (ours, plain)
        )
        size = sum(values[name].norm() for values in exact)
        assert error <= 2 * plain_error + ulp * size, name


def test_float32_is_as_near_as_its_rounding():
    model = make_model()
    loss = Slices(model).loss(model)
    model.double()
    assert abs(loss - Slices(model, torch.float64).loss(model)) < 1e-5
