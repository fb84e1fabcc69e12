"""Cross-entropy of a linear classifier with very many classes, without holding the scores of all of them. Plain
PyTorch.

With hidden rows x_n, one row w_c and one bias b_c a class, and t_n the class that row n should get:

    s_nc = x_n . w_c + b_c        lse_n = log sum_c exp(s_nc)        loss_n = lse_n - s_nt

The scores are the trouble: for 1,024 rows and 500,000 entities they are 2 GB in float32, several times over. So the
classes are taken a chunk at a time. Forward, the largest score so far and the sum of exponentials go along,

    peak' = max(peak, max_c s_nc)        total' = total exp(peak - peak') + sum_c exp(s_nc - peak')

and in the end lse = peak + log total. Backward, with g_n the gradient of loss_n, a chunk's scores are computed again
and turned in place into

    d_nc = exp(s_nc - lse_n) - [c = t_n]        dx_n = g_n sum_c d_nc w_c        dw_c = sum_n d_nc (g_n x_n)

and db_c = sum_n d_nc g_n. dw and db of a chunk are then done; dx is a sum over the chunks. g stays out of d,
which saves a pass over it.

The price is four products where the full computation has three. The gain is memory, 10 MB instead of 2.4 GB at 512 rows
and 500,000 classes, and that scores stay in the cache. On a CPU nine tenths of the time are the four products. The full
computation saves one of them and fetches 2.4 GB of new pages instead: in all it takes 1.2 to 3 times as long. Where all
scores together are small, as those of a dozen entities or of a few hundred words are, they are kept for the backward
pass and the fourth product is saved. Chunks of rows instead of classes, as elsewhere, read the whole table and add to
all its gradients once a chunk: 14 times slower.

Every row counts: select them before. Left out: ignored targets, class weights, label smoothing.
"""

import torch
from torch import Tensor

CHUNK_BYTES = 4 << 20  # float32 scores of one chunk; 1 to 16 MB were within 10 % of each other
KEPT_BYTES = 64 << 20  # if all scores are no more than this they are kept for the backward pass


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """For every row: loss, whether the best class is the target (of equally good ones the first counts), log-sum-exp.

    hidden [rows, features], weight [classes, features], bias [classes] or None, target int64 [rows].
    Returns float32 [rows], bool [rows], float32 [rows]; only the loss has a gradient. Products are in hidden's type or
    autocast's, but for float16 in float32; in bfloat16 a CPU rounds the scores too, as F.linear does. The softmax is
    in float32 (float64 for float64). Each gradient has the type of its tensor, whatever autocast says.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    dtype = torch.float32 if dtype == torch.float16 else dtype
    return ChunkedCrossEntropy.apply(hidden, weight, bias, target, dtype)


class ChunkedCrossEntropy(torch.autograd.Function):
    """A chunk of classes at a time; letters as in the equations above."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, target, dtype):
        rows, classes = len(hidden), len(weight)
        x, wide = hidden.to(dtype), torch.promote_types(dtype, torch.float32)
        keep = any(ctx.needs_input_grad) and rows * classes * 4 <= KEPT_BYTES
        peak = hidden.new_full((rows,), -torch.inf, dtype=wide)
        total, target_score, hit = torch.zeros_like(peak), torch.zeros_like(peak), target < 0
        kept, buffer = [], None if keep else x.new_empty(CHUNK_BYTES // 4 + rows)
        for start, stop in chunks(rows, classes):
            s = scores(x, weight, bias, start, stop, buffer)
            kept += [s] if keep else []
            top = s.amax(1).to(wide)
            row, column = targets_within(target, start, stop)
            target_score[row] = s[row, column].to(wide)
            hit &= top <= peak  # no longer, if this chunk has a better class than the target
            leads = (target_score[row] > peak[row]) & (target_score[row] == top[row])
            row, column = row[leads], column[leads]
            hit[row] = s[row].argmax(1) == column
            new_peak = torch.maximum(peak, top)
            total = total * (peak - new_peak).exp() + exponentials(s, new_peak, keep).sum(1)
            peak = new_peak
        lse = peak + total.log()
        ctx.save_for_backward(hidden, weight, bias, target, lse, *kept)
        ctx.dtype = dtype
        ctx.mark_non_differentiable(hit, lse)
        return lse - target_score, hit, lse

    @staticmethod
    def backward(ctx, g, *_):
        hidden, weight, bias, target, lse, *kept = ctx.saved_tensors
        (rows, classes), dtype, wide = (len(hidden), len(weight)), ctx.dtype, lse.dtype
        x, gx = hidden.to(dtype), (hidden * g[:, None]).to(dtype)
        dx, dw, db = (torch.empty_like(t) if needed else None
                      for t, needed in zip((hidden, weight, bias), ctx.needs_input_grad))  # fmt: skip
        sum_dx = hidden.new_zeros(hidden.shape, dtype=wide)
        buffer = None if kept else x.new_empty(CHUNK_BYTES // 4 + rows)
        for number, (start, stop) in enumerate(chunks(rows, classes)):
            s = kept[number] if kept else scores(x, weight, bias, start, stop, buffer)
            d = exponentials(s, lse, kept)
            d[targets_within(target, start, stop)] -= 1
            if db is not None:
                db[start:stop] = d.T @ g
            d = d.to(dtype)
            if dx is not None:
                add_product(sum_dx, d, weight[start:stop].to(dtype))
            if dw is not None:
                dw[start:stop] = product(d.T, gx)
        if dx is not None:
            torch.mul(sum_dx, g[:, None], out=dx)
        return dx, dw, db, None, None


def chunks(rows: int, classes: int) -> list[tuple[int, int]]:
    """First class and the one after the last, for every chunk. Scores that are few enough to be kept are one chunk."""
    size = max(1, CHUNK_BYTES // (4 * max(1, rows)))
    # A power of two: with sizes that change from step to step, bfloat16 products on a CPU are compiled every time.
    size = classes if rows * classes * 4 <= KEPT_BYTES else 1 << size.bit_length() - 1
    return [(start, min(start + size, classes)) for start in range(0, classes, size)]


def scores(x: Tensor, weight: Tensor, bias: Tensor | None, start: int, stop: int, buffer: Tensor | None) -> Tensor:
    """Scores [rows, stop - start] of a chunk of classes, in the memory of `buffer` if there is one."""
    w = weight[start:stop].to(x.dtype).T
    if x.is_cuda and x.dtype == torch.bfloat16:
        s = product(x, w)
        return s if bias is None else s.add_(bias[start:stop])
    out = None if buffer is None else buffer[: len(x) * (stop - start)].view(len(x), stop - start)
    return torch.mm(x, w, out=out) if bias is None else torch.addmm(bias[start:stop].to(x.dtype), x, w, out=out)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b; of bfloat16 factors on a GPU in float32, as the tensor cores sum it."""
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda and a.dtype == torch.bfloat16 else torch.mm(a, b)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b"""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += product(a, b)


def exponentials(s: Tensor, shift: Tensor, keep: bool) -> Tensor:
    """exp(s - shift), a shift a row, in the type of shift; in place unless s is to be kept."""
    if keep or s.dtype != shift.dtype:
        return (s - shift[:, None]).exp_()
    return s.sub_(shift[:, None]).exp_()


def targets_within(target: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Rows whose target lies in the chunk, and its column there."""
    row = ((target >= start) & (target < stop)).nonzero()[:, 0]
    return row, target[row] - start
