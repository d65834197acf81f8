import pytest
import torch
from torch.nn.functional import linear

from wavernn.recurrence import recurrence_bf16

# what a bfloat16 is off by, at most, as a share of itself
ROUNDING = 2**-9


def make_inputs(T, B, H):
    torch.manual_seed(T + B + H)
    gates_TBG = torch.randn(T, B, 3 * H)
    R_GH = torch.randn(3 * H, H) / H**0.5
    h_BH = torch.rand(B, H) * 2 - 1
    # both forms start from the same numbers
    return gates_TBG.bfloat16().float(), R_GH.bfloat16().float(), h_BH.bfloat16().float()


def plain(gates_TBG, R_GH, h_BH, narrow):
    """Equation 2 a step at a time, left to autograd; `narrow` is the dtype of the products."""
    states = []
    for gates_BG in gates_TBG:
        product = linear(h_BH.to(narrow), R_GH.to(narrow)).to(h_BH.dtype)
        I_u, I_r, I_e = gates_BG.chunk(3, dim=1)
        R_u, R_r, R_e = product.chunk(3, dim=1)
        u, r = torch.sigmoid(R_u + I_u), torch.sigmoid(R_r + I_r)
        h_BH = u * h_BH + (1 - u) * torch.tanh(r * R_e + I_e)
        states.append(h_BH)
    return torch.stack(states)


def measure(run, inputs, weight, dtype=torch.float32):
    """States, and the gradients of gates, R and first state for a loss that weighs each state."""
    inputs = [tensor.to(dtype, copy=True).requires_grad_() for tensor in inputs]
    states = run(*inputs)
    (states * weight).sum().backward()
    return [t.double() for t in (states.detach(), *(tensor.grad for tensor in inputs))]


def compare(inputs, weight):
    exact = measure(lambda *x: plain(*x, torch.float64), inputs, weight, torch.float64)
    same = measure(lambda *x: plain(*x, torch.bfloat16), inputs, weight)
    ours = measure(recurrence_bf16, inputs, weight)
    for name, a, b, right in zip(("h", "gates", "R", "first h"), ours, same, exact, strict=True):
        error, plain_error = (a - right).abs().max(), (b - right).abs().max()
        assert error <= 2 * plain_error + ROUNDING * right.abs().max(), name


@pytest.mark.parametrize("H", [1, 16, 33], ids="H{}".format)
@pytest.mark.parametrize("B", [1, 3, 17], ids="B{}".format)
@pytest.mark.parametrize("T", [1, 63], ids="T{}".format)
def test_states_and_gradients(T, B, H):
    inputs = make_inputs(T, B, H)
    compare(inputs, torch.randn(T, B, H))


@pytest.mark.parametrize("t", [0, 20, 39])
def test_gradients_of_a_single_state(t):
    weight = torch.zeros(40, 3, 16)
    weight[t] = 1
    inputs = make_inputs(40, 3, 16)
    compare(inputs, weight)
    _, d_gates, _, _ = measure(recurrence_bf16, inputs, weight)
    assert (d_gates[: t + 1] != 0).any()
    assert (d_gates[t + 1 :] == 0).all()


def test_saturated_gates_keep_or_replace_the_state():
    gates_TBG = torch.zeros(1, 2, 12)
    gates_TBG[0, 0, :4], gates_TBG[0, 1, :4] = 200, -200
    gates_TBG[0, :, 8:] = 200
    h_BH = torch.tensor([[0.5, -0.25, 0.0, 1.0]]).repeat(2, 1)
    (states,) = recurrence_bf16(gates_TBG, torch.zeros(12, 4), h_BH)
    assert torch.equal(states[0], h_BH[0])
    assert torch.equal(states[1], torch.ones(4))


def test_the_state_is_float32_and_carried_whole():
    gates_TBG, R_GH, h_BH = make_inputs(40, 3, 16)
    whole = recurrence_bf16(gates_TBG, R_GH, h_BH)
    assert whole.dtype == torch.float32
    first = recurrence_bf16(gates_TBG[:23], R_GH, h_BH)
    second = recurrence_bf16(gates_TBG[23:], R_GH, first[-1])
    assert torch.equal(torch.cat((first, second)), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_have_the_dtypes_of_what_came_in(dtype):
    gates_TBG, R_GH, h_BH = make_inputs(4, 2, 6)
    inputs = [gates_TBG.to(dtype), R_GH, h_BH]
    for tensor in inputs:
        tensor.requires_grad_()
    recurrence_bf16(*inputs).sum().backward()
    assert [tensor.grad.dtype for tensor in inputs] == [dtype, torch.float32, torch.float32]
    assert [tensor.grad.shape for tensor in inputs] == [tensor.shape for tensor in inputs]


def test_a_second_backward_gives_the_same():
    inputs = [tensor.requires_grad_() for tensor in make_inputs(6, 2, 4)]
    loss = recurrence_bf16(*inputs).square().sum()
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    second = torch.autograd.grad(loss, inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_nothing_uninitialised_is_read_or_left(monkeypatch):
    inputs, weight = make_inputs(9, 3, 7), torch.randn(9, 3, 7)
    clean = measure(recurrence_bf16, inputs, weight)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(torch.nan))
    poisoned = measure(recurrence_bf16, inputs, weight)
    assert all(torch.equal(a, b) for a, b in zip(clean, poisoned, strict=True))
