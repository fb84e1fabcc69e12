"""Linear layer and cross-entropy fused, for very many classes: no [rows, classes] in memory.

With hidden rows x_n, a weight row w_c and a bias b_c per class, and t_n the target class of row n:

    s_nc = x_n . w_c + b_c         lse_n = log sum_c exp(s_nc)     loss_n = lse_n - s_nt     hit_n = argmax_c s_nc = t_n

Forward, a program of `statistics_kernel` owns a strip of rows and walks a share of the classes from left to right. Of
the scores it keeps four numbers per row: the maximum, its class, the sum of exponentials, the target's score:

                       classes 0 .......... 50,000 .......... 100,000 ...
                      .-------------------.--------------------.--------
      rows 0 .. 127   | program (0, 0) -> | program (0, 1) ->  |      each leaves four numbers per row, which are
                      |-------------------|--------------------|      joined at the end: the maximum of the maxima,
      rows 128 .. 255 | program (1, 0) -> | program (1, 1) ->  |      and of the sums, each brought to that maximum
                      '-------------------'--------------------'--------

*Backward*, with g_n the gradient of loss_n, scores are computed once more, a chunk of classes at a time:

      d_nc = g_n (exp(s_nc - lse_n) - [c = t_n])        the gradient of s_nc
      dx_n = sum_c d_nc w_c                             a sum over the chunks, in float32
      dw_c = sum_n d_nc x_n       db_c = sum_n d_nc     done with the chunk

`score_gradient_kernel` writes d of a chunk, small enough to stay in the L2 cache for the two matmuls by cuBLAS, and for
db its sums over each strip of rows. These are four matmuls of that size; with stored scores it would be three. No
atomics: every run is bit-equal.

*float16* rounds to 0 below 6e-8 and loses digits below 6e-5. With 500,000 classes a softmax is near 2e-6 almost
everywhere; times g = 1e-3, as in a mean over a thousand rows, 99 % of it would be lost, all but the targets. So d is
stored with g divided by the largest |g|, times 4,096; the matmuls give float32 and are scaled back. bfloat16 has
float32's range, so g is only divided by the largest: in a mean all become 1, and the targets' d, about -1, is exact.

*Grid*: axis 0 strips of rows, so that the programs that read the same classes run side by side; axis 1 shares of the
classes (forward) or tiles of the chunk (d). A row or class past the end reads the last one again, so loads need no
masks; its score is minus infinity, or its result is not stored.

*Types*: a float32 weight beside a half-precision x is rounded tile by tile, so that autocast makes no copy of the
table. Matmuls accumulate, and softmax and sums are, in float32. *Memory* beyond the gradients: d (16 MB), a chunk of
the weight's gradient and, if the weight is rounded, of the weight; forward 2 MB at most. *Limits*: 2**30 classes; no
ignored targets (select rows before); differentiable once. *Relative error* against float64 on the same inputs: loss,
and gradients in float32 (2e-7), as in plain PyTorch; gradients in float16 (3e-4) and bfloat16 (2.2e-3) less than one
rounding of the type. *Tested with* triton 3.7.1 in the interpreter and as machine code for sm_80, sm_90, sm_100; not
yet run on a GPU.

*Tried, and no better*: a whole row of 256 features at once: 262 KB of shared memory on sm_100, which has 227; g
multiplied into the rows of x instead of into d: in bfloat16 one more rounding; chunks of rows instead of classes: the
whole table is read once per chunk.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.entity_attention import LOG2_E, architecture, readable

LN_2 = 0.6931471805599453


@triton.jit
def _scores(x, weight, bias, row, label, classes, stride_x, stride_weight, FEATURES: tl.constexpr,
            BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """Scores of BLOCK_M rows and BLOCK_N classes, times log2 e; minus infinity for classes past the last."""
    channel = tl.arange(0, BLOCK_K)[None, :]
    x_rows = x + row.to(tl.int64)[:, None] * stride_x + channel
    weight_rows = weight + tl.minimum(label, classes - 1).to(tl.int64)[:, None] * stride_weight + channel
    s = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for k in range(0, FEATURES, BLOCK_K):
        x_tile = tl.load(x_rows + k)
        weight_tile = tl.load(weight_rows + k)
        s = tl.dot(x_tile, tl.trans(weight_tile.to(x_tile.dtype)), s, input_precision="ieee")
    shift = tl.load(bias + label, mask=label < classes, other=float("-inf")).to(tl.float32) * LOG2_E
    return s * LOG2_E + shift[None, :]


@triton.jit(do_not_specialize=["rows", "classes", "n_tiles"])
def statistics_kernel(x, weight, bias, target, share_max, share_sum, best, target_score,
                      stride_x, stride_weight, rows, classes, n_tiles,
                      FEATURES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """For BLOCK_M rows and n_tiles tiles of classes: maximum, sum of exponentials relative to it, the first class that
    has it, the target's score (minus infinity if in another share). All in base 2, [shares of the classes, rows]."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    share = tl.program_id(1)
    exists = row < rows
    offsets = share.to(tl.int64) * rows + row
    row = tl.minimum(row, rows - 1)
    row_target = tl.load(target + row).to(tl.int32)
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_score = row_max
    row_sum, row_best = tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M], tl.int32)
    first = share * n_tiles * BLOCK_N
    stop = tl.minimum(first + n_tiles * BLOCK_N, classes)
    for start in tl.range(first, stop, BLOCK_N, flatten=True):  # one loop with that over features: loads run on
        label = start + tl.arange(0, BLOCK_N)
        s = _scores(x, weight, bias, row, label, classes, stride_x, stride_weight, FEATURES, BLOCK_M, BLOCK_N, BLOCK_K)
        top = tl.max(s, 1)
        first_top = tl.min(tl.where(s == top[:, None], label[None, :], 0x7FFFFFFF), 1)
        row_best = tl.where(top > row_max, first_top, row_best)  # of equal scores the first class wins
        new_max = tl.maximum(row_max, top)
        row_sum = row_sum * tl.exp2(row_max - new_max) + tl.sum(tl.exp2(s - new_max[:, None]), 1)
        row_max = new_max
        is_target = label[None, :] == row_target[:, None]
        row_score = tl.maximum(row_score, tl.max(tl.where(is_target, s, float("-inf")), 1))
    tl.store(share_max + offsets, row_max, mask=exists)
    tl.store(share_sum + offsets, row_sum, mask=exists)
    tl.store(best + offsets, row_best, mask=exists)
    tl.store(target_score + offsets, row_score, mask=exists)


@triton.jit(do_not_specialize=["rows", "first", "last"])
def score_gradient_kernel(x, weight, bias, target, lse, g, d, d_bias,
                          stride_x, stride_weight, stride_d, rows, first, last,
                          FEATURES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """d for BLOCK_M rows and BLOCK_N of the classes first .. last - 1, and its sum over these rows, for db."""
    strip = tl.program_id(0)
    row = strip * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_exists, column_exists = row < rows, first + column < last
    row_offsets = row.to(tl.int64)[:, None] * stride_d
    row_g = tl.load(g + row, mask=row_exists, other=0.0)
    row = tl.minimum(row, rows - 1)
    s = _scores(x, weight, bias, row, first + column, last, stride_x, stride_weight, FEATURES, BLOCK_M, BLOCK_N,
                BLOCK_K)
    gradient = tl.exp2(s - tl.load(lse + row)[:, None])
    is_target = (first + column)[None, :] == tl.load(target + row).to(tl.int32)[:, None]
    gradient = tl.where(is_target, gradient - 1.0, gradient) * row_g[:, None]
    tl.store(d_bias + strip * stride_d + column, tl.sum(gradient, 0), mask=column_exists)
    tl.store(d + row_offsets + column[None, :], gradient.to(d.dtype.element_ty),
             mask=row_exists[:, None] & column_exists[None, :])


# ---------------------------------------------------------------- launching


class Tile(NamedTuple):
    """Tile sizes: rows and classes of a tile of scores, and features per step of its matmul."""

    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int  # depth of the load pipeline


# Without spills on sm_80, sm_90 and sm_100, for 256, 768 and 1024 features (`bench_kernels.py --static`).
TILE = Tile(128, 128, 64, 8, 3)
ROUNDING_TILE = Tile(128, 128, 64, 8, 2)  # float32 weight beside a half-precision x
FLOAT32_TILE = Tile(32, 32, 32, 4, 1)  # for checks: exact float32 matmuls do not run on tensor cores
PROGRAMS = 1024  # about as many forward programs are launched: several per processor, for any number of rows
CHUNK_BYTES = 16 << 20  # maximum for d of a chunk of classes and for the chunk's weight gradient in float32
LARGEST_D = {torch.float16: 4096.0, torch.bfloat16: 1.0}  # d is scaled so that |d| <= this before it is rounded


def choose_tile(dtype: torch.dtype, weight_dtype: torch.dtype, features: int) -> Tile:
    tile = FLOAT32_TILE if dtype == torch.float32 else TILE if weight_dtype == dtype else ROUNDING_TILE
    return tile._replace(block_k=min(tile.block_k, features & -features))  # must divide the number of features


def launch_options(tile: Tile, features: int) -> dict:
    """The constexpr and compile options of a launch."""
    return dict(FEATURES=features, BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, BLOCK_K=tile.block_k,
                num_warps=tile.num_warps, num_stages=tile.num_stages)  # fmt: skip


def chunk_size(rows: int, features: int, itemsize: int, tile: Tile) -> int:
    """The number of classes in a chunk, a multiple of block_n."""
    return max(1, CHUNK_BYTES // (max(itemsize * rows, 4 * features) * tile.block_n)) * tile.block_n


def _product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b in float32, which a and b may not be: then the result is not rounded."""
    if a.is_cuda and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32, out=out)
    return torch.mm(a.float(), b.float(), out=out)


@torch.library.custom_op("luke_mini::linear_cross_entropy", mutates_args=())
def _cross_entropy(x: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """loss, hit, lse (base 2) of every row."""
    (rows, features), classes = x.shape, len(weight)
    x, weight = readable(x), readable(weight)
    tile = choose_tile(x.dtype, weight.dtype, features)
    strips, n_tiles = triton.cdiv(rows, tile.block_m), triton.cdiv(classes, tile.block_n)
    per_share = max(1, n_tiles * strips // PROGRAMS)
    shares = triton.cdiv(n_tiles, per_share)
    share_max, share_sum, target_score = x.new_empty(3, shares, rows, dtype=torch.float32)
    best = torch.empty_like(share_max, dtype=torch.int32)
    if rows:
        with torch.cuda.device_of(x):
            statistics_kernel[strips, shares](
                x, weight, bias, target, share_max, share_sum, best, target_score, x.stride(0), weight.stride(0), rows,
                classes, per_share, **launch_options(tile, features),
            )  # fmt: skip
    joint_max, share = share_max.max(0)  # the first of equal shares
    lse = joint_max + (share_sum * torch.exp2(share_max - joint_max)).sum(0).log2()
    hit = best.gather(0, share[None])[0] == target
    return (lse - target_score.amax(0)) * LN_2, hit, lse


@torch.library.custom_op("luke_mini::linear_cross_entropy_backward", mutates_args=())
def _cross_entropy_backward(g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, target: Tensor, lse: Tensor,
                            needs_x: bool, needs_weight: bool) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, weight (empty if it is not needed) and bias."""
    (rows, features), classes = x.shape, len(weight)
    x, weight = readable(x), readable(weight)
    tile = choose_tile(x.dtype, weight.dtype, features)
    size, strips = chunk_size(rows, features, x.element_size(), tile), triton.cdiv(rows, tile.block_m)
    grad_scale = LARGEST_D[x.dtype] / g.abs().amax().clamp(min=1e-30) if x.dtype in LARGEST_D and rows else 1.0
    g = g * grad_scale
    dx = x.new_zeros(x.shape, dtype=torch.float32)
    d_weight = weight.new_empty(weight.shape) if needs_weight else weight.new_empty(0)
    d_bias, d_buffer, strip_bias = g.new_empty(classes), x.new_empty(rows * size), g.new_empty(strips * size)
    for first in range(0, classes, size):
        last = min(first + size, classes)
        n = last - first
        width = (n + 15) // 16 * 16  # the rows of d begin at multiples of 16 bytes
        d, sums = d_buffer[: rows * width].view(rows, width), strip_bias[: strips * width].view(strips, width)
        if rows:
            with torch.cuda.device_of(x):
                score_gradient_kernel[strips, triton.cdiv(n, tile.block_n)](
                    x, weight, bias, target, lse, g, d, sums, x.stride(0), weight.stride(0), width, rows, first, last,
                    maxnreg=128 if tile.num_stages == 2 and architecture(x.device) < 100 else None,
                    **launch_options(tile, features),
                )  # fmt: skip
        d = d[:, :n]
        if needs_x:
            dx += _product(d, weight[first:last].to(x.dtype))
        if needs_weight and weight.dtype == torch.float32:
            _product(d.T, x, out=d_weight[first:last])
        elif needs_weight:
            torch.div(_product(d.T, x), grad_scale, out=d_weight[first:last])
        torch.sum(sums[:, :n], 0, out=d_bias[first:last])
    if weight.dtype == torch.float32:
        d_weight /= grad_scale
    return (dx / grad_scale).to(x.dtype), d_weight, (d_bias / grad_scale).to(bias.dtype)


@_cross_entropy.register_fake
def _(x, weight, bias, target):
    rows = x.new_empty(x.shape[0], dtype=torch.float32)  # not len(x): it would fix the number of rows
    return rows, torch.empty_like(rows, dtype=torch.bool), torch.empty_like(rows)


@_cross_entropy_backward.register_fake
def _(g, x, weight, bias, target, lse, needs_x, needs_weight):
    d_weight = weight.new_empty(weight.shape) if needs_weight else weight.new_empty(0)
    return x.new_empty(x.shape), d_weight, bias.new_empty(bias.shape)  # contiguous, whatever x is


def _remember(ctx, inputs, output):
    ctx.save_for_backward(*inputs, output[2])
    ctx.set_materialize_grads(False)  # lse has no gradient


def _gradients(ctx, g, *_):
    x, weight, bias, target, lse = ctx.saved_tensors
    needs = ctx.needs_input_grad
    dx, d_weight, d_bias = _cross_entropy_backward(g, x, weight, bias, target, lse, needs[0], needs[1])
    return dx, d_weight if needs[1] else None, d_bias, None


_cross_entropy.register_autograd(_gradients, setup_context=_remember)


# ---------------------------------------------------------------- the public side


def linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, target: Tensor
                         ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """For every row: loss, whether the top class is the target (the first of equal ones counts), log-sum-exp.

    hidden [rows, features] in float16, bfloat16 or float32 (under autocast it is converted); weight [classes, features]
    and bias [classes], in hidden's type or float32; target int64 [rows], in range.
    Returns float32 [rows], bool [rows], float32 [rows]. The loss is differentiable, once, with respect to the first
    three; each gradient has its tensor's type.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    hidden = hidden.to(dtype)
    _check(hidden, weight, bias, target)
    loss, hit, lse = _cross_entropy(hidden, weight, bias, target)
    return loss, hit, lse.detach() * LN_2


def _check(hidden, weight, bias, target):
    if hidden.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise ValueError(f"linear_cross_entropy: {hidden.dtype}, expected float16, bfloat16 or float32")
    if hidden.dim() != 2 or hidden.shape[1] % 16 or weight.shape != (len(weight), hidden.shape[1]):
        raise ValueError(f"linear_cross_entropy: hidden is {tuple(hidden.shape)}, weight {tuple(weight.shape)}, "
                         f"expected [rows, features] and [classes, features], features a multiple of 16")  # fmt: skip
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor.dtype not in (hidden.dtype, torch.float32):
            raise ValueError(f"linear_cross_entropy: {name} is {tensor.dtype}, expected {hidden.dtype} or float32")
    if bias.shape != weight.shape[:1]:
        raise ValueError(f"linear_cross_entropy: bias is {tuple(bias.shape)}, expected {tuple(weight.shape[:1])}")
    if target.shape != hidden.shape[:1] or target.dtype != torch.int64:
        raise ValueError(f"linear_cross_entropy: target is {target.dtype} {tuple(target.shape)}, "
                         f"expected torch.int64 {tuple(hidden.shape[:1])}")  # fmt: skip
