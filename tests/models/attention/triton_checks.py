"""Checks of the Triton kernels against float64, run by test_triton_kernels.py in its own process.

Triton decides when it is imported whether it interprets, and other tests import it first (timm,
lightning and torchmetrics do). So these run with TRITON_INTERPRET=1 on a CPU, and without it on
a GPU.
"""

import os

import pytest
import torch

from artifactnet.models.attention import triton_kernels

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# largest error over largest value; gradients are products of tiles in q's type, stored in it
VECTOR_ERROR = 1e-5
GRADIENT_ERROR = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
SHAPES = [  # images, heads, queries, keys, head size
    (1, 1, 17, 17, 16),
    (2, 3, 70, 70, 48),
    (1, 2, 33, 65, 32),
    (2, 1, 1, 50, 64),
    (1, 2, 40, 40, 80),
    (1, 1, 19, 64, 128),
    (1, 1, 130, 150, 64),  # more than one block on either side
]


def make(shape, dtype, seed=0):
    """q, k as timm lays them out, a weight per query and a value per key."""
    batch, heads, queries, keys, dim = shape
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(batch, keys, 3, heads, dim, generator=generator).to(DEVICE, dtype)
    q, k, _ = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    weights = torch.rand(batch, queries, generator=generator).to(DEVICE)
    values = torch.randn(batch, keys, generator=generator).to(DEVICE)
    return q[:, :, :queries], k, weights, values


def reference(q, k, weights, values, scale):
    """All results in float64 from the explicit matrix; gradients by autograd."""
    q, k = (tensor.double().requires_grad_() for tensor in (q, k))
    scores = scale * torch.einsum("bhid,bhjd->bhij", q, k)
    matrix = torch.exp(scores - scores.amax(-1, keepdim=True))
    matrix = matrix / matrix.sum(-1, keepdim=True)
    row = torch.einsum("bi,bhij->bj", weights.double(), matrix) / q.shape[1]
    column = torch.einsum("bhij,bj->bhi", matrix, values.double())
    d_q, d_k = torch.autograd.grad((row * values.double()).sum(), (q, k))
    level = torch.log(torch.exp(scores).sum(-1))
    return {"lse": level, "row": row, "column": column, "d_q": d_q, "d_k": d_k}


def computed(q, k, weights, values, scale):
    lse = triton_kernels.log_sum_exp(q, k, scale)
    row = triton_kernels.row_product(q, k, lse, weights, scale)
    column = triton_kernels.column_product(q, k, lse, values, scale)
    d_q, d_k = triton_kernels.rank_one_backward(q, k, lse, weights, values, column, scale)
    return {"lse": lse, "row": row, "column": column, "d_q": d_q, "d_k": d_k}


def assert_close(results, expected, dtype, widen=1):
    for name, right in expected.items():
        got, gradient = results[name], name in ("d_q", "d_k")
        assert got.shape == right.shape, name
        assert got.dtype == (dtype if gradient else torch.float32), name
        error = (got.double() - right).abs().max() / right.abs().max()
        limit = GRADIENT_ERROR[dtype] if gradient else VECTOR_ERROR
        assert error <= widen * limit, f"{name} is off by {error:.2e}"  # NaN is not <= either


def test_the_kernels_run_where_they_should():
    assert triton_kernels._interpreted() == (DEVICE == "cpu")
    q, k, _, _ = make(SHAPES[0], torch.float32)
    assert triton_kernels.why_not(q, k) is None


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products_equal_float64(shape, dtype):
    inputs = make(shape, dtype)
    scale = 1.7 * shape[-1] ** -0.5
    assert_close(computed(*inputs, scale), reference(*inputs, scale), dtype)


@pytest.mark.parametrize("level", [-150.0, 80.0])
def test_rows_of_extreme_scores(level):
    # exp(-level) is infinite in float32: what lies beyond the last key must be cut off, not
    # multiplied by zero
    q, k, weights, values = make((1, 1, 20, 37, 16), torch.float32)
    inputs = 0.1 * q + 1, 0.1 * k + level / 16, weights, values, 1.0
    # a float32 near 150 is known to 8e-6, and with it the logarithm of P
    assert_close(computed(*inputs), reference(*inputs), q.dtype, widen=20)


def test_float16_gradients_of_small_values_and_weights():
    # in the first image every entry of dS is below 3e-8, which float16 rounds to zero
    q, k, weights, values = make((2, 2, 48, 60, 32), torch.float16)
    # small weights, which the gradient of k sums over
    small_weights = q * 4096, k / 4096, weights * 1e-7, values * 10, 0.2
    weights, values = weights.clone(), values.clone()
    weights[0] *= 10
    values[0] *= 1e-7
    small_values = q / 4096, k * 4096, weights, values, 0.2
    for name, inputs in (("d_q", small_values), ("d_k", small_weights)):
        got, expected = computed(*inputs)[name].double(), reference(*inputs)[name]
        for image in range(2):
            error = (got[image] - expected[image]).abs().max() / expected[image].abs().max()
            assert error <= GRADIENT_ERROR[torch.float16]


def test_float16_gradients_of_rows_that_look_at_one_key():
    # P is 1e-6 at every other key: of that float16 alone keeps 4 bits
    q, k, weights, values = make((1, 1, 8, 300, 16), torch.float16)
    q, k, values = 0.1 * q + 1, 0.1 * k, values.clone()
    k[:, :, 7] = 14 / 16
    values[:, 7] = 0
    inputs = q, k, weights * 1000, values, 1.0
    assert_close(computed(*inputs), reference(*inputs), torch.float16)


def test_zero_weights_and_values_have_zero_gradients():
    q, k, weights, values = make((1, 2, 20, 20, 16), torch.float32)
    for left, right in ((weights * 0, values), (weights, values * 0)):
        found = computed(q, k, left, right, 0.25)
        assert found["d_q"].eq(0).all()
        assert found["d_k"].eq(0).all()


def test_a_gradient_that_is_not_finite_stays_visible():
    q, k, weights, values = make((2, 1, 20, 20, 16), torch.float32)
    values[0, 3] = float("inf")
    found = computed(q, k, weights, values, 0.25)
    assert not found["d_q"][0].isfinite().any()
    assert found["d_q"][1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_two_runs_agree_bit_by_bit_and_layout_does_not_matter(dtype):
    q, k, weights, values = make((1, 2, 45, 45, 32), dtype)
    first = computed(q, k, weights, values, 0.2)
    again = computed(q, k, weights, values, 0.2)
    wide = torch.zeros(1, 2, 45, 64, dtype=dtype, device=DEVICE)
    wide[..., ::2] = k
    other = computed(q.contiguous(), wide[..., ::2], weights.double(), values, 0.2)
    for name, result in first.items():
        assert torch.equal(result, again[name]), name
        assert torch.equal(result, other[name]), name
