"""The tapped attention call: the library's numbers, and a second gradient in its backward."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from artifactnet.models.attention import fused
from artifactnet.models.attention.fused import can_fuse, fused_attention


def inputs(dtype=torch.float32, batch=2, heads=3, tokens=20, dim=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(batch, tokens, 3, heads, dim, generator=generator, dtype=torch.float64)
    parts = qkv.to(dtype).permute(2, 0, 3, 1, 4).unbind(0)
    return [part.detach().requires_grad_() for part in parts]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_output_and_gradients_are_those_of_the_library(dtype):
    q, k, v = inputs(dtype)
    out, log_sum_exp, _ = fused_attention(q, k, v, 0.3)
    expected = F.scaled_dot_product_attention(q, k, v, scale=0.3)
    assert torch.equal(out, expected)
    scores = q.double() @ k.double().mT * 0.3
    close = {"atol": 1e-5, "rtol": 1e-5} if dtype.itemsize >= 4 else {"atol": 0.02, "rtol": 0.01}
    torch.testing.assert_close(log_sum_exp.double(), scores.logsumexp(-1), **close)
    assert not log_sum_exp.requires_grad
    weights = torch.randn_like(out)
    got = torch.autograd.grad(out, (q, k, v), weights)
    for one, other in zip(got, torch.autograd.grad(expected, (q, k, v), weights), strict=True):
        assert torch.equal(one, other)


def by_matrices(q, k, v, d_out, weights, values, scale):
    """Gradients of both terms by whole float64 matrices."""
    q, k, v = (x.detach().double().requires_grad_() for x in (q, k, v))
    matrix = (q @ k.mT * scale).softmax(-1)
    row = (weights.double()[:, None, :, None] * matrix).sum(2).mean(1)
    total = ((matrix @ v) * d_out.double()).sum() + (row * values.double()).sum()
    return torch.autograd.grad(total, (q, k, v)), matrix.detach()


CPU = [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)]
GPU = [(torch.bfloat16, 2e-2), (torch.float16, 2e-2)]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize(
    ("device", "dtype", "tolerance"),
    [("cpu", *case) for case in CPU] + [pytest.param("cuda", *c, marks=needs_gpu) for c in GPU],
)
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_a_handle_s_gradient_reaches_queries_and_keys(device, dtype, tolerance, size):
    """Also where the chain's gradient is large, has a common part, or weights are tiny."""
    q, k, v = (x.detach().to(device).requires_grad_() for x in inputs(dtype))
    out, log_sum_exp, handle = fused_attention(q, k, v, 0.25)
    scores = q.double() @ k.double().mT * 0.25
    torch.testing.assert_close(log_sum_exp.double(), scores.logsumexp(-1), atol=0.02, rtol=0.01)
    wide = log_sum_exp.dtype
    weights = torch.rand(2, 20, dtype=wide).to(device) * 1e-3 * size
    values = (torch.randn(2, 20, dtype=wide).to(device) + 3) * size
    d_out = torch.randn_like(out)
    expected, matrix = by_matrices(q, k, v, d_out, weights, values, 0.25)
    products = (matrix @ values.double()[:, None, :, None])[..., 0].to(wide)
    packed = torch.cat([weights[:, None], values[:, None], products], dim=1)
    got = torch.autograd.grad((out, handle), (q, k, v), (d_out, packed))
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == dtype
        assert (one.double() - other).norm() <= tolerance * other.norm()


def test_a_handle_alone_carries_gradient():
    q, k, v = inputs(torch.float64)
    _, _, handle = fused_attention(q, k, v, 0.25)
    weights, values = torch.rand(2, 20).double(), torch.randn(2, 20).double()
    zeros = torch.zeros(2, 3, 20, 16)
    expected, matrix = by_matrices(q, k, v, zeros, weights, values, 0.25)
    products = (matrix @ values[:, None, :, None])[..., 0]
    packed = torch.cat([weights[:, None], values[:, None], products], dim=1)
    got = torch.autograd.grad(handle, (q, k, v), packed)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)


def test_gradients_are_the_same_every_time():
    q, k, v = inputs(tokens=150)
    d_out, message = torch.randn(2, 3, 150, 16), torch.randn(2, 5, 150)

    def run():
        out, _, handle = fused_attention(q, k, v, 0.25)
        return torch.autograd.grad((out, handle), (q, k, v), (d_out, message))

    first = run()
    for _ in range(3):
        assert all(torch.equal(one, other) for one, other in zip(first, run(), strict=True))


def test_calls_of_another_form_are_left_to_the_library():
    q, k, v = inputs()
    assert can_fuse(q, k, v)
    assert not can_fuse(q, k, v, mask=torch.zeros(20, 20))
    assert not can_fuse(q, k, v, dropout=0.1)
    assert not can_fuse(q[:, :, :3], k, v)
    assert not can_fuse(q[..., :5], k[..., :5], v[..., :5])
    assert not can_fuse(q, k, v.half())
    assert not can_fuse(q.to("meta"), k.to("meta"), v.to("meta"))


def test_the_gpu_s_kernels_are_called_with_what_they_take():
    """Shapes and arguments alone: fake tensors run PyTorch's own shape functions."""
    with FakeTensorMode():
        q, k, v = (torch.empty(2, 3, 17, 64, device="cuda", dtype=torch.float16) for _ in "qkv")
        ctx = SimpleNamespace(
            save_for_backward=lambda *kept: setattr(ctx, "saved_tensors", kept),
            mark_non_differentiable=lambda *_: None,
            set_materialize_grads=lambda _: None,
        )
        out, log_sum_exp, handle = fused._FusedAttention.forward(ctx, q, k, v, 0.125)
        assert out.shape == q.shape
        assert log_sum_exp.shape == (2, 3, 17)
        assert log_sum_exp.dtype == handle.dtype == torch.float32
        packed = torch.empty(2, 5, 17, device="cuda")
        for given in (None, packed):
            found = fused._FusedAttention.backward(ctx, torch.empty_like(out), None, given)
            assert [x.shape for x in found[:3]] == [q.shape] * 3
            assert all(x.dtype == torch.float16 for x in found[:3])
