"""The operations of `ops.py` in cache-sized pieces of plain PyTorch, for CPUs. Backward passes are written by hand.

Both are operators of their own (`torch.library`): torch.compile takes them as they are and does not look inside, where
lengths decide what is computed. What is kept for the backward pass is a result of the operator; in a compiled model
nothing is, as its size would depend on the lengths.

Attention: see `_attention`. Cross-entropy of a linear classifier with very many classes, without holding all
scores: with hidden rows x_n, one row w_c and one bias b_c a class, and t_n the class that row n should get:

    s_nc = x_n . w_c + b_c        lse_n = log sum_c exp(s_nc)        loss_n = lse_n - s_nt

The scores are the trouble: for 1,024 rows and 500,000 entities they are 2 GB in float32, several times over. So the
classes are taken a chunk at a time. Forward, the largest score so far and the sum of exponentials go along,

    max' = max(max, max_c s_nc)        sum' = sum exp(max - max') + sum_c exp(s_nc - max')

and in the end lse = max + log sum. Backward, with g_n the gradient of loss_n, a chunk's scores are computed again
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

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

GROUP_AREA = 512 * 512  # a group's sequences x rows^2, at most; one sequence may exceed it
PART_BYTES = 5 << 18  # float32 scores that attention works on at a time: two such buffers fit a core's cache
KEPT_SIZE = 256  # rows of a sequence up to which its probabilities are kept for the backward pass
CHUNK_BYTES = 4 << 20  # float32 scores of one chunk; 1 to 16 MB were within 10 % of each other
KEPT_BYTES = 64 << 20  # if all scores are no more than this they are kept for the backward pass


# --- Attention --------------------------------------------------------------------------------------------------------


class Group(NamedTuple):
    """Sequences of similar size, laid side by side: G sequences of `size` rows.

    Rows 0 to n_word - 1 of each are its words, the rest its entities, both padded at their ends.
    """

    rows: Tensor  # int64 [G * size], the packed row at each place; places of padding repeat a row of the sequence
    is_row: Tensor | None  # bool [G, size], False at places of padding; None if there are none
    n_word: int  # places for words
    size: int  # places for words and entities


def groups(segments: Tensor) -> list[Group]:
    """All sequences, in groups that bring many short ones into one product and leave long ones alone."""
    return _groups(tuple(segments[:, 1].tolist()), tuple(segments[:, 3].tolist()))


@lru_cache(maxsize=4)  # all layers of a model ask for those of one batch
def _groups(word_lengths: tuple[int, ...], entity_lengths: tuple[int, ...]) -> list[Group]:
    words, entities = np.array(word_lengths, dtype=np.int64), np.array(entity_lengths, dtype=np.int64)
    order = np.argsort(-(words + entities), kind="stable")
    found, begin = [], 0
    for end in range(1, len(order) + 1):
        members = order[begin : end + 1]  # with the next one, if there is one
        size = words[members].max() + entities[members].max()
        if end == len(order) or len(members) * size * size > GROUP_AREA:
            found.append(_group(order[begin:end], words, entities))
            begin = end
    return found


def _group(members: np.ndarray, words: np.ndarray, entities: np.ndarray) -> Group:
    first_word, first_entity = np.cumsum(words) - words, words.sum() + np.cumsum(entities) - entities
    n_word, n_entity = int(words[members].max()), int(entities[members].max())
    column, members = np.arange(n_word + n_entity), members[:, None]
    is_word = column < n_word
    is_row = np.where(is_word, column < words[members], column - n_word < entities[members])
    rows = np.where(is_word, first_word[members] + column, first_entity[members] + column - n_word)
    rows = np.where(is_row, rows, first_word[members]).ravel()
    mask = None if is_row.all() else torch.from_numpy(is_row)
    return Group(torch.from_numpy(rows), mask, n_word, n_word + n_entity)


def packed_attention(
    q2w: Tensor, q2e: Tensor | None, key: Tensor, value: Tensor, segments: Tensor, dropout: float = 0.0
) -> Tensor:
    """`ops.entity_attention`; segments as in `PackedBatch`."""
    seed = torch.randint(2**62, (1,)) if dropout else None
    keep = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return _attention(q2w, q2e, key, value, segments, dropout, seed, keep)[0]


@torch.library.custom_op("luke_mini::packed_attention", mutates_args=())
def _attention(
    q2w: Tensor, q2e: Tensor | None, key: Tensor, value: Tensor, segments: Tensor, dropout: float,
    seed: Tensor | None, keep: bool,
) -> tuple[Tensor, list[Tensor]]:  # fmt: skip
    """One group of similar sequences at a time, and in a group as many (sequence, head) pairs as have scores that fit a
    core's cache. Scores of long sequences are not kept: computing them again costs less than writing them to memory and
    reading them back. P of short ones is small and kept.

    Backward, with S the scaled scores, P = softmax(S), M the dropout mask already divided by the keep probability, G
    the gradient of the output O (letters as in FlashAttention's appendix):

        dV = (P M)^T G        dP = (G V^T) M        delta_i = sum_j P_ij dP_ij
        dS = P (dP - delta)   dQ = dS K / sqrt(d)   dK = dS^T Q / sqrt(d)

    where word columns of dS meet q2w and entity columns meet q2e. delta is also G_i . O_i, which needs no pass
    over P. But where a weight is nearly 1, dP - delta cancels, and only of the same dP do the rounding errors cancel,
    too: with G_i . O_i, gradients of queries and keys lost up to 17 times as much in float32.
    """
    out, kept = value.new_empty(value.shape), []
    found = groups(segments)
    memory = _memory(5, found, key)
    for number, group in enumerate(found):
        # qw, qe, k, v: the group's rows of q2w, q2e, key, value
        qw, qe, k, v = (_take(x, group, m) for x, m in zip((q2w, q2e, key, value), memory))
        mixed = memory[4][: v.numel()].view_as(v)
        keeps = keep and group.size <= KEPT_SIZE
        space = k.new_empty(len(k), group.size, group.size) if keeps else _buffer(group, k)
        for part, padding in _parts(group, k):
            p = space[part] if keeps else space[: part.stop - part.start]
            _probabilities(qw[part], None if qe is None else qe[part], k[part], group.n_word, padding, p)
            if dropout:
                p = p * dropout_mask(p, dropout, hash((int(seed), number, part.start)))
            torch.bmm(p, v[part], out=mixed[part])
        _put(out, mixed, group)
        kept += [space] if keeps else []
    return out, kept


@torch.library.custom_op("luke_mini::packed_attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor, q2w: Tensor, q2e: Tensor | None, key: Tensor, value: Tensor, kept: list[Tensor],
    segments: Tensor, dropout: float, seed: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q2w, q2e (empty if there is none), key, value."""
    scale, waiting = key.shape[2] ** -0.5, list(kept)
    dq2w, dq2e, dk, dv = (key.new_empty(0 if x is None else x.shape) for x in (q2w, q2e, key, value))
    found = groups(segments)
    memory = _memory(9, found, key)
    for number, group in enumerate(found):
        qw, qe, k, v, g = (_take(x, group, m) for x, m in zip((q2w, q2e, key, value, grad), memory))
        if group.is_row is not None:  # places of padding repeat some row: they must not count a second time
            g *= group.is_row.repeat_interleave(key.shape[1], 0)[:, :, None]
        n_word = group.size if qe is None else group.n_word
        grad_qw, grad_qe, grad_k, grad_v = (m[: k.numel()].view_as(k) for m in memory[5:])
        is_kept = bool(kept) and group.size <= KEPT_SIZE
        space, buffer = waiting.pop(0) if is_kept else _buffer(group, k), _buffer(group, k)
        for part, padding in _parts(group, k):
            p = space[part] if is_kept else space[: part.stop - part.start]
            if not is_kept:
                _probabilities(qw[part], None if qe is None else qe[part], k[part], group.n_word, padding, p)
            ds = torch.bmm(g[part], v[part].mT, out=buffer[: len(p)])  # dP, turned into dS in place
            if dropout:
                mask = dropout_mask(p, dropout, hash((int(seed), number, part.start)))
                ds.mul_(mask)
                torch.bmm((p * mask).mT, g[part], out=grad_v[part])
            else:
                torch.bmm(p.mT, g[part], out=grad_v[part])
            torch._softmax_backward_data(ds, p, 2, p.dtype, grad_input=ds)  # P (dP - delta)
            scaled_product(ds[:, :, :n_word], k[part, :n_word], scale, grad_qw[part])
            scaled_product(ds[:, :, :n_word].mT, qw[part], scale, grad_k[part, :n_word])
            if qe is not None:
                scaled_product(ds[:, :, n_word:], k[part, n_word:], scale, grad_qe[part])
                scaled_product(ds[:, :, n_word:].mT, qe[part], scale, grad_k[part, n_word:])
        for whole, rows in ((dq2w, grad_qw), (dk, grad_k), (dv, grad_v)):
            _put(whole, rows, group)
        if qe is not None:
            _put(dq2e, grad_qe, group)
    return dq2w, dq2e, dk, dv


@_attention.register_fake
def _(q2w, q2e, key, value, segments, dropout, seed, keep):
    return value.new_empty(value.shape), []


@_attention_backward.register_fake
def _(grad, q2w, q2e, key, value, kept, segments, dropout, seed):
    return tuple(key.new_empty(0 if x is None else x.shape) for x in (q2w, q2e, key, value))


def _remember_attention(ctx, inputs, output):
    *tensors, ctx.dropout, seed, _ = inputs
    ctx.save_for_backward(*tensors, seed, *output[1])
    ctx.set_materialize_grads(False)  # what is kept has no gradient


def _attention_gradients(ctx, grad, _):
    *tensors, segments, seed = ctx.saved_tensors[:6]
    if grad is None:
        return (None,) * 8
    kept = list(ctx.saved_tensors[6:])
    gradients = _attention_backward(grad, *tensors, kept, segments, ctx.dropout, seed)
    return *(None if x is None else g for x, g in zip(tensors, gradients)), *[None] * 4


_attention.register_autograd(_attention_gradients, setup_context=_remember_attention)


def _parts(group: Group, key: Tensor) -> list[tuple[slice, Tensor | None]]:
    """The (sequence, head) pairs of a group whose scores stay in a core's cache together, and which of their keys are
    padding (bool, to broadcast over the scores; None: no padding)."""
    step = len(_buffer(group, key))
    parts = [slice(i, min(i + step, len(key))) for i in range(0, len(key), step)]
    if group.is_row is None:
        return [(part, None) for part in parts]
    padding = ~group.is_row.repeat_interleave(len(key) // len(group.is_row), 0)[:, None, :]
    return [(part, padding[part]) for part in parts]


def _buffer(group: Group, key: Tensor) -> Tensor:
    """Scratch buffer shared by all parts: allocating costs more than the matmul that fills it."""
    pairs = torch.get_num_threads() * PART_BYTES // (4 * group.size**2)  # each thread has a cache of its own
    return key.new_empty(min(len(key), max(1, pairs)), group.size, group.size)


def _probabilities(qw, qe, k: Tensor, n_word: int, padding: Tensor | None, scores: Tensor) -> None:
    """Fills `scores` with P [pairs, size, size]."""
    scale = k.shape[2] ** -0.5
    # All keys are scored with the word query in one product; the few entity columns are then overwritten.
    scaled_product(qw, k.mT, scale, scores)
    if qe is not None and n_word < k.shape[1]:
        scaled_product(qe, k[:, n_word:].mT, scale, scores[:, :, n_word:])
    if padding is not None:
        scores.masked_fill_(padding, -math.inf)
    torch.softmax(scores, dim=2, out=scores)


def scaled_product(a: Tensor, b: Tensor, scale: float, out: Tensor) -> None:
    """out = scale * a b, batch by batch; the scale costs nothing inside of the product."""
    torch.baddbmm(out, a, b, beta=0, alpha=scale, out=out)


def _memory(pieces: int, found: list[Group], key: Tensor) -> Tensor:
    """Scratch buffers for the rows of one group, shared by all groups: allocating costs more than copying."""
    _, heads, head_dim = key.shape
    return key.new_empty(pieces, max(len(group.rows) for group in found) * heads * head_dim)


def _take(x: Tensor | None, group: Group, memory: Tensor) -> Tensor | None:
    """The rows of a group's sequences, copied: [rows, head, head_dim] -> [G * head, size, head_dim], contiguous."""
    if x is None:
        return None
    _, heads, head_dim = x.shape
    shape = len(group.rows) // group.size * heads, group.size, head_dim
    taken = memory[: math.prod(shape)].view(shape)
    if len(group.rows) == group.size:  # one sequence: two runs of rows, each copied at once
        for places, rows in _runs(group):
            taken[:, places] = x[rows].transpose(0, 1)
    else:
        rows = x.index_select(0, group.rows).view(-1, group.size, heads, head_dim)
        taken.view(-1, heads, group.size, head_dim).copy_(rows.transpose(1, 2))
    return taken


def _put(whole: Tensor, part: Tensor, group: Group) -> None:
    """The inverse of `_take`, into the rows of `whole`; places of padding are dropped."""
    _, heads, head_dim = whole.shape
    if len(group.rows) == group.size:
        for places, rows in _runs(group):
            whole[rows] = part[:, places].transpose(0, 1)
        return
    rows = part.view(-1, heads, group.size, head_dim).transpose(1, 2)
    if group.is_row is None:
        whole.index_copy_(0, group.rows, rows.reshape(-1, heads, head_dim))
    else:
        whole[group.rows[group.is_row.view(-1)]] = rows[group.is_row]


def _runs(group: Group) -> list[tuple[slice, slice]]:
    """For a group of one sequence, the places and the packed rows of its words and of its entities."""
    places = slice(0, group.n_word), slice(group.n_word, group.size)
    firsts = [int(group.rows[span.start]) for span in places if span.start < span.stop]
    return [(span, slice(first, first + span.stop - span.start)) for span, first in zip(places, firsts)]


def dropout_mask(like: Tensor, p: float, seed: int | None = None) -> Tensor:
    """0 with probability p, else 1 / (1 - p), in the shape and type of `like`; a function of the seed, drawn if not
    given from torch's generator, so that `torch.manual_seed` rules.

    On a CPU 16 random bits an element decide (p is met to 1 in 65536), which is several times faster than `bernoulli_`.
    """
    seed = int(torch.randint(2**62, ())) if seed is None else seed % 2**62
    bits = np.frombuffer(np.random.Generator(np.random.SFC64(seed)).bytes(2 * like.numel()), dtype=np.uint16)
    keep = torch.from_numpy(bits >= round(p * 65536)).view(like.shape)
    return keep.to(like.dtype).mul_(1 / (1 - p))


# --- Cross-entropy ----------------------------------------------------------------------------------------------------


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """For every row: loss, whether the best class is the target (of equally good ones the first counts), log-sum-exp.

    hidden [rows, features], weight [classes, features], bias [classes] or None, target int64 [rows].
    Returns float32 [rows], bool [rows], float32 [rows]; only the loss has a gradient. Products are in hidden's type or
    autocast's, but for float16 in float32; in bfloat16 a CPU rounds the scores too, as F.linear does. The softmax is
    in float32 (float64 for float64). Each gradient has the type of its tensor, whatever autocast says.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else hidden.dtype
    dtype = torch.float32 if dtype == torch.float16 else dtype
    keep = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    loss, hit, lse, _ = _cross_entropy(hidden, weight, bias, target, dtype, keep)
    return loss, hit, lse.detach()


@torch.library.custom_op("luke_mini::chunked_cross_entropy", mutates_args=())
def _cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, dtype: torch.dtype, keep: bool
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """One chunk of classes at a time; letters as in the equations above."""
    rows, classes = len(hidden), len(weight)
    x, accum_dtype = hidden.to(dtype), torch.promote_types(dtype, torch.float32)
    keep = keep and rows * classes * 4 <= KEPT_BYTES
    row_max = hidden.new_full((rows,), -torch.inf, dtype=accum_dtype)
    row_sum, target_score, hit = torch.zeros_like(row_max), torch.zeros_like(row_max), target < 0
    kept, buffer = [], None if keep else x.new_empty(rows * chunks(rows, classes)[0][1])
    for start, stop in chunks(rows, classes):
        s = scores(x, weight, bias, start, stop, buffer)
        kept += [s] if keep else []
        top = s.amax(1).to(accum_dtype)
        row, column = targets_within(target, start, stop)
        target_score[row] = s[row, column].to(accum_dtype)
        hit &= top <= row_max  # no longer, if this chunk has a better class than the target
        leads = (target_score[row] > row_max[row]) & (target_score[row] == top[row])
        row, column = row[leads], column[leads]
        hit[row] = s[row].argmax(1) == column
        new_max = torch.maximum(row_max, top)
        row_sum = row_sum * (row_max - new_max).exp() + exponentials(s, new_max, keep).sum(1)
        row_max = new_max
    lse = row_max + row_sum.log()
    return lse - target_score, hit, lse, kept


@torch.library.custom_op("luke_mini::chunked_cross_entropy_backward", mutates_args=())
def _cross_entropy_backward(
    g: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, lse: Tensor, kept: list[Tensor],
    dtype: torch.dtype, needs_hidden: bool, needs_weight: bool, needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of hidden, weight and bias; empty where not needed."""
    (rows, classes), accum_dtype = (len(hidden), len(weight)), lse.dtype
    x, gx = hidden.to(dtype), (hidden * g[:, None]).to(dtype)
    dx, dw, db = _empty_gradients(hidden, weight, bias, needs_hidden, needs_weight, needs_bias)
    sum_dx = hidden.new_zeros(hidden.shape, dtype=accum_dtype)
    buffer = None if kept else x.new_empty(rows * chunks(rows, classes)[0][1])
    for number, (start, stop) in enumerate(chunks(rows, classes)):
        s = kept[number] if kept else scores(x, weight, bias, start, stop, buffer)
        d = exponentials(s, lse, bool(kept))
        d[targets_within(target, start, stop)] -= 1
        if needs_bias:
            db[start:stop] = d.T @ g
        d = d.to(dtype)
        if needs_hidden:
            add_product(sum_dx, d, weight[start:stop].to(dtype))
        if needs_weight:
            dw[start:stop] = d.T @ gx
    if needs_hidden:
        torch.mul(sum_dx, g[:, None], out=dx)
    return dx, dw, db


def _empty_gradients(hidden, weight, bias, *needed: bool) -> list[Tensor]:
    return [hidden.new_empty(t.shape if need else 0, dtype=(hidden if t is None else t).dtype)
            for t, need in zip((hidden, weight, bias), needed)]  # fmt: skip


@_cross_entropy.register_fake
def _(hidden, weight, bias, target, dtype, keep):
    loss = hidden.new_empty(hidden.shape[0], dtype=torch.promote_types(dtype, torch.float32))
    return loss, torch.empty_like(target, dtype=torch.bool), torch.empty_like(loss), []


@_cross_entropy_backward.register_fake
def _(g, hidden, weight, bias, target, lse, kept, dtype, *needed):
    return tuple(_empty_gradients(hidden, weight, bias, *needed))


def _remember_cross_entropy(ctx, inputs, output):
    *tensors, ctx.dtype, _ = inputs
    ctx.save_for_backward(*tensors, output[2], *output[3])
    ctx.set_materialize_grads(False)


def _cross_entropy_gradients(ctx, g, *_):
    if g is None:
        return (None,) * 6
    tensors, kept, needed = ctx.saved_tensors[:5], list(ctx.saved_tensors[5:]), ctx.needs_input_grad[:3]
    gradients = _cross_entropy_backward(g, *tensors, kept, ctx.dtype, *needed)
    return *(gradient if need else None for gradient, need in zip(gradients, needed)), None, None, None


_cross_entropy.register_autograd(_cross_entropy_gradients, setup_context=_remember_cross_entropy)


def chunks(rows: int, classes: int) -> list[tuple[int, int]]:
    """First class and the one after the last, for every chunk. Scores that are few enough to be kept are one chunk."""
    size = max(1, CHUNK_BYTES // (4 * max(1, rows)))
    # A power of two: with sizes that change from step to step, bfloat16 products on a CPU are compiled every time.
    size = classes if rows * classes * 4 <= KEPT_BYTES else 1 << size.bit_length() - 1
    return [(start, min(start + size, classes)) for start in range(0, classes, size)]


def scores(x: Tensor, weight: Tensor, bias: Tensor | None, start: int, stop: int, buffer: Tensor | None) -> Tensor:
    """Scores [rows, stop - start] of a chunk of classes, in the memory of `buffer` if there is one."""
    w = weight[start:stop].to(x.dtype).T
    out = None if buffer is None else buffer[: len(x) * (stop - start)].view(len(x), stop - start)
    return torch.mm(x, w, out=out) if bias is None else torch.addmm(bias[start:stop].to(x.dtype), x, w, out=out)


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b"""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def exponentials(s: Tensor, shift: Tensor, keep: bool) -> Tensor:
    """exp(s - shift), a shift a row, in the type of shift; in place unless s is to be kept."""
    if keep or s.dtype != shift.dtype:
        return (s - shift[:, None]).exp_()
    return s.sub_(shift[:, None]).exp_()


def targets_within(target: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
    """Rows whose target lies in the chunk, and its column there."""
    row = ((target >= start) & (target < stop)).nonzero()[:, 0]
    return row, target[row] - start
