"""The operations of `ops.py` in cache-sized pieces of plain PyTorch, for CPUs. Backward passes are written by hand.

Both are operators of their own (`torch.library`): torch.compile takes them as they are and does not look inside, where
lengths decide what is computed. What is kept for the backward pass is a result of the operator; in a compiled model
nothing is, as its size would depend on the lengths.

Attention: see `_attend`. Cross-entropy of a linear classifier with very many classes: with hidden rows x_n, one row
w_c and one bias b_c a class, and t_n the class that row n should get,

    s_nc = x_n . w_c + b_c        lse_n = log sum_c exp(s_nc)        loss_n = lse_n - s_nt

The scores are the trouble: for 1,024 rows and 500,000 entities they are 2 GB in float32, several times over. So the
classes are taken a chunk at a time, while its scores are in the cache. Each chunk k has a softmax p of its own, and
that of all classes is the chunk's times the chunk's share of the sum of exponentials:

    lse_nk = log sum_(c in k) exp(s_nc)    lse_n = log sum_k exp(lse_nk)    exp(s_nc - lse_n) = p_nc exp(lse_nk - lse_n)

Backward, with g_n the gradient of loss_n and d_nc = g_n exp(s_nc - lse_n),

    dx_n = sum_c d_nc w_c - g_n w_t        dw_c = sum_n d_nc x_n - sum_(t_n = c) g_n x_n        db_c: without x_n

Where all scores together are small, the p are kept for the backward pass. Elsewhere they are computed again: four
products where the full computation has three, but 10 MB instead of 2.4 GB at 512 rows and 500,000 classes, whose pages
alone take longer. Chunks of rows instead of classes read the whole table and add to all its gradients once a chunk: 14
times slower.

Every row counts: select them before. Left out: ignored targets, class weights, label smoothing.
"""

import ctypes
import math
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GROUP_AREA = 256 * 256  # a group's sequences x places^2, at most; one sequence may exceed it
PART_BYTES = 5 << 19  # float32 scores that attention works on at a time, for each thread: 1 to 3 MB were equally fast
KEPT_SIZE = 256  # places of a sequence up to which its probabilities are kept for the backward pass
CHUNK_BYTES = 4 << 20  # float32 scores of one chunk of classes; 1 to 16 MB were within 10 % of each other
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
ONEDNN_SIZE = 1 << 18  # elements of a weight from which oneDNN's products are used
KEPT_BYTES = 256 << 20  # if all scores are no more than this they are kept for the backward pass


# --- Memory -----------------------------------------------------------------------------------------------------------


def keep_memory() -> None:
    """glibc gives the memory of large tensors back to the system when they are freed, and the next step touches new
    pages, zeroed one by one: a tenth of a training step of base size. From here on the process keeps it."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_MAX, 0)  # no tensor has a mapping of its own
        mallopt(M_TRIM_THRESHOLD, -1)  # the end of the heap is never given back


# --- Micro-batches side by side ---------------------------------------------------------------------------------------

_lane = threading.local()
_threads: list[int] = []  # of torch, before they were shared out among lanes


def threads() -> int:
    """Of torch in all, whether or not they are shared out."""
    return _threads[0] if _threads else torch.get_num_threads()


@contextmanager
def side_by_side(lanes: int) -> Iterator[Callable]:
    """`with side_by_side(2) as each:` each(act, items) is map(act, items), computed by as many Python threads.

    In the step of a small model, thousands of short operations each wait for the slowest core; beside another process,
    for one that is taken, until the system's next turn. Here cores meet once a step. So the threads of torch are shared
    out among the lanes; where there is one each, none waits. Random numbers depend on torch's generator and the place
    in `items` alone, if they are drawn from `generator`.
    """
    if lanes == 1:
        yield map
        return
    before, share = torch.get_num_threads(), max(1, threads() // lanes)

    def act_alone(act: Callable, item, seed: int):
        _lane.generator = torch.Generator().manual_seed(seed)
        return act(item)

    def each(act: Callable, items: list) -> Iterator:
        return pool.map(act_alone, [act] * len(items), items, torch.randint(2**62, (len(items),)).tolist())

    _threads.append(threads())
    torch.set_num_threads(share)  # here, too: threads that are done with their part keep their core for a while
    try:
        with ThreadPoolExecutor(lanes, "lane", torch.set_num_threads, (share,)) as pool:
            yield each
    finally:
        _threads.pop()
        torch.set_num_threads(before)


def generator() -> torch.Generator | None:
    """What this thread draws random numbers from on a CPU; None: torch's own."""
    return getattr(_lane, "generator", None)


# --- Operators --------------------------------------------------------------------------------------------------------


def operator(name: str, compute: Callable, like: Callable, remember: Callable, gradients: Callable) -> Callable:
    """The function `compute` with its gradients, for torch.compile an operator of torch.library.

    like: the shapes of its results, for the compiler. remember(ctx, inputs, results): what `gradients` needs. Outside
    of compiled models the library's checks are left out: a fifth of a millisecond each time.
    """
    compiled = torch.library.custom_op(name, compute, mutates_args=())
    compiled.register_fake(like)
    compiled.register_autograd(gradients, setup_context=remember)

    def forward(ctx, *inputs):
        results = compute(*inputs)
        remember(ctx, inputs, results)
        return results

    backward = torch.autograd.function.once_differentiable(gradients)
    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    eager = type(compute.__name__, (torch.autograd.Function,), methods)
    return lambda *inputs: (compiled if torch.compiler.is_compiling() else eager.apply)(*inputs)


# --- Linear layers ----------------------------------------------------------------------------------------------------


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias, in float32 by oneDNN in place of MKL, which on processors that are not Intel's leaves up to
    half of the speed unused. Not for small weights: oneDNN compiles for every new number of rows (0.3 ms)."""
    is_large = x.dtype == weight.dtype == torch.float32 and weight.numel() > ONEDNN_SIZE
    use_onednn = is_large and torch.backends.mkldnn.is_available()
    return _Linear.apply(x, weight, bias) if use_onednn else F.linear(x, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x, weight), (needs_x, needs_weight, needs_bias) = ctx.saved_tensors, ctx.needs_input_grad
        dx = _product(grad, weight.T) if needs_x else None
        dweight = _product(grad.T, x.T) if needs_weight else None
        return dx, dweight, grad.sum(0) if needs_bias else None


def _product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a b^T + bias"""
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")


# --- Attention --------------------------------------------------------------------------------------------------------


class Group(NamedTuple):
    """Sequences of similar length side by side. Each has `size` places: n_word for its words, the rest for its
    entities; places beyond its own are padding and repeat its first row. A *pair* is a (sequence, head)."""

    first: int  # places of all pairs in the groups before
    pairs: int
    n_word: int
    size: int
    bias: Tensor  # float32 [pairs, 1, size], added to scores: -inf where the key is padding, else 0

    def of(self, x: Tensor, kinds: int) -> Tensor:
        """This group's part of a tensor of all places: [kinds, pairs, size, head_dim]."""
        places = slice(kinds * self.first, kinds * (self.first + self.pairs * self.size))
        return x[places].view(kinds, self.pairs, self.size, -1)

    def parts(self) -> list[slice]:
        """Pairs whose scores stay in the caches together; each thread has a cache of its own, and as many pairs."""
        step = torch.get_num_threads() * max(1, PART_BYTES // (4 * self.size**2))
        return [slice(i, min(i + step, self.pairs)) for i in range(0, self.pairs, step)]


class Layout(NamedTuple):
    """Where the rows of a packed batch are in its groups.

    Tensors [rows, kinds, heads, head_dim], of two kinds (queries, or key and value) or one, become [places, head_dim],
    group after group: one operation brings all rows there, one brings all of them back.
    """

    groups: list[Group]
    rows: dict[int, Tensor]  # by kinds: int64, for each place the row of a tensor [rows * kinds * heads, head_dim]
    places: dict[int, Tensor]  # by kinds: int64, the inverse
    padding: Tensor  # int64, the places of padding of one kind

    def gather(self, x: Tensor) -> Tensor:
        return x.reshape(-1, x.shape[3]).index_select(0, self.rows[x.shape[1]])

    def scatter(self, x: Tensor, kinds: int, heads: int) -> Tensor:
        return x.index_select(0, self.places[kinds]).view(-1, kinds, heads, x.shape[1])


def layout(segments: Tensor, heads: int) -> Layout:
    return _layout(tuple(segments[:, 1].tolist()), tuple(segments[:, 3].tolist()), heads)


@lru_cache(maxsize=8)  # all layers of a model ask for that of one batch
def _layout(word_lengths: tuple[int, ...], entity_lengths: tuple[int, ...], heads: int) -> Layout:
    words, entities = np.array(word_lengths, dtype=np.int64), np.array(entity_lengths, dtype=np.int64)
    first_word, first_entity = np.cumsum(words) - words, words.sum() + np.cumsum(entities) - entities
    groups, rows, first = [], [], 0
    for members in _similar(words, entities):
        n_word, n_entity = int(words[members].max()), int(entities[members].max())
        sequence, place = members[:, None, None], np.arange(n_word + n_entity)  # [sequence, head, place]
        is_row = np.where(place < n_word, place < words[sequence], place - n_word < entities[sequence])
        row = np.where(place < n_word, first_word[sequence] + place, first_entity[sequence] + place - n_word)
        rows.append((np.where(is_row, row, first_word[sequence]), is_row))
        bias = np.where(is_row, np.float32(0), np.float32(-math.inf)).repeat(heads, 0)
        groups.append(Group(first, len(bias), n_word, len(place), torch.from_numpy(bias)))
        first += len(bias) * len(place)
    (one, one_back, padding), (two, two_back, _) = (_indices(rows, kinds, heads) for kinds in (1, 2))
    return Layout(groups, {1: one, 2: two}, {1: one_back, 2: two_back}, padding)


def _similar(words: np.ndarray, entities: np.ndarray) -> Iterator[np.ndarray]:
    """All sequences that have rows, in groups that bring many short ones into one product and leave long ones alone."""
    order = np.argsort(-(words + entities), kind="stable")
    order, begin = order[(words + entities)[order] > 0], 0
    for end in range(1, len(order) + 1):
        members = order[begin : end + 1]  # with the next one, if there is one
        size = words[members].max() + entities[members].max()
        if end == len(order) or len(members) * size * size > GROUP_AREA:
            yield order[begin:end]
            begin = end


def _indices(rows: list[tuple[np.ndarray, np.ndarray]], kinds: int, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """`Layout.rows`, `places`, `padding`. rows: each group's rows and which are no padding, [sequences, 1, places]."""
    kind, head = np.arange(kinds)[:, None, None, None], np.arange(heads)[:, None]
    index = [(row * kinds + kind) * heads + head for row, _ in rows]  # [kinds, sequences, heads, places]
    is_row = np.concatenate([np.broadcast_to(real, part.shape).ravel() for part, (_, real) in zip(index, rows)])
    index = np.concatenate([part.ravel() for part in index])
    inverse = np.empty(is_row.sum(), dtype=np.int64)
    inverse[index[is_row]] = np.flatnonzero(is_row)
    return torch.from_numpy(index), torch.from_numpy(inverse), torch.from_numpy(np.flatnonzero(~is_row))


def packed_attention(queries: Tensor, key_value: Tensor, segments: Tensor, dropout: float = 0.0) -> Tensor:
    """`ops.entity_attention`; segments as in `PackedBatch`."""
    seed = torch.randint(2**62, (1,), generator=generator()) if dropout else None
    keep = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return _attention(queries, key_value, segments, dropout, seed, keep)[0]


def _attend(
    queries: Tensor, key_value: Tensor, segments: Tensor, dropout: float, seed: Tensor | None, keep: bool
) -> tuple[Tensor, list[Tensor]]:
    """One group of similar sequences at a time, and in a group as many pairs as have scores that fit the caches.
    Scores of long sequences are not kept: computing them again costs less than writing them to memory and reading them
    back. P of short ones is small and kept, as are gathered queries, keys and values in place of what they came from.

    Backward, with S the scores of the scaled queries, P = softmax(S), M the dropout mask already divided by the keep
    probability, G the gradient of the output O (letters as in FlashAttention's appendix):

        dV = (P M)^T G        dP = (G V^T) M        delta_i = sum_j P_ij dP_ij
        dS = P (dP - delta)   dQ = dS K             dK = dS^T Q

    where word columns of dS meet q2w and entity columns meet q2e. delta is also G_i . O_i, which needs no pass
    over P. But where a weight is nearly 1, dP - delta cancels, and only of the same dP do the rounding errors cancel,
    too: with G_i . O_i, gradients of queries and keys lost up to 17 times as much in float32.
    """
    found, kinds = layout(segments, queries.shape[2]), queries.shape[1]
    q, kv = found.gather(queries).mul_(queries.shape[3] ** -0.5), found.gather(key_value)
    mixed, kept = kv.new_empty(len(kv) // 2, kv.shape[1]), [q, kv] if keep else []
    for number, group in enumerate(found.groups):
        query, (key, value), [out] = group.of(q, kinds), group.of(kv, 2), group.of(mixed, 1)
        keeps = keep and group.size <= KEPT_SIZE
        space = key.new_empty(group.pairs if keeps else group.parts()[0].stop, group.size, group.size)
        for part in group.parts():
            p = space[part] if keeps else space[: part.stop - part.start]
            _probabilities(query[:, part], key[part], group.n_word, group.bias[part], p)
            if dropout:
                p = p * dropout_mask(p, dropout, hash((int(seed), number, part.start)))
            torch.bmm(p, value[part], out=out[part])
        kept += [space] if keeps else []
    return found.scatter(mixed, 1, queries.shape[2]).squeeze(1), kept


@torch.library.custom_op("luke_mini::packed_attention_backward", mutates_args=())
def _attention_backward(
    grad: Tensor, queries: Tensor, key_value: Tensor, kept: list[Tensor], segments: Tensor, dropout: float,
    seed: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of queries and of key_value, which come as they are or, if kept, gathered and scaled."""
    _, heads, head_dim = grad.shape
    found, scale, q, kv = layout(segments, heads), head_dim**-0.5, queries, key_value
    if queries.dim() == 4:
        q, kv = found.gather(queries).mul_(scale), found.gather(key_value)
    kinds, g = 2 * len(q) // len(kv), found.gather(grad.unsqueeze(1))
    g.index_fill_(0, found.padding, 0)  # it repeats rows, which must not count a second time
    dq, dkv, waiting = torch.empty_like(q), torch.empty_like(kv), list(kept)
    for number, group in enumerate(found.groups):
        query, (key, value), [out] = group.of(q, kinds), group.of(kv, 2), group.of(g, 1)
        dquery, (dkey, dvalue) = group.of(dq, kinds), group.of(dkv, 2)
        buffer = key.new_empty(group.parts()[0].stop, group.size, group.size)
        space = waiting.pop(0) if kept and group.size <= KEPT_SIZE else None
        again = torch.empty_like(buffer) if space is None else None
        for part in group.parts():
            p = again[: part.stop - part.start] if space is None else space[part]
            if space is None:
                _probabilities(query[:, part], key[part], group.n_word, group.bias[part], p)
            ds = torch.bmm(out[part], value[part].mT, out=buffer[: len(p)])  # dP, turned into dS in place
            if dropout:
                mask = dropout_mask(p, dropout, hash((int(seed), number, part.start)))
                ds.mul_(mask)
                torch.bmm((p * mask).mT, out[part], out=dvalue[part])
            else:
                torch.bmm(p.mT, out[part], out=dvalue[part])
            torch._softmax_backward_data(ds, p, 2, p.dtype, grad_input=ds)  # P (dP - delta)
            _score_gradients(ds, query[:, part], key[part], group.n_word, dquery[:, part], dkey[part])
    return found.scatter(dq.mul_(scale), kinds, heads), found.scatter(dkv, 2, heads)


def _attention_like(queries, key_value, segments, dropout, seed, keep):
    return key_value.new_empty(key_value[:, 0].shape), []


@_attention_backward.register_fake
def _(grad, queries, key_value, kept, segments, dropout, seed):
    return torch.empty_like(queries), torch.empty_like(key_value)


def _remember_attention(ctx, inputs, output):
    queries, key_value, segments, ctx.dropout, seed, _ = inputs
    q, kv, *spaces = output[1] or (queries, key_value)
    ctx.save_for_backward(q, kv, segments, seed, *spaces)
    ctx.set_materialize_grads(False)  # what is kept has no gradient


def _attention_gradients(ctx, grad, _):
    if grad is None:
        return (None,) * 6
    queries, key_value, segments, seed, *kept = ctx.saved_tensors
    gradients = _attention_backward(grad, queries, key_value, kept, segments, ctx.dropout, seed)
    return *gradients, None, None, None, None


_attention = operator(
    "luke_mini::packed_attention", _attend, _attention_like, _remember_attention, _attention_gradients
)


def _probabilities(query: Tensor, key: Tensor, n_word: int, bias: Tensor, scores: Tensor) -> None:
    """Fills `scores` with P [pairs, size, size]. query: [kinds, pairs, size, head_dim], scaled.

    All keys are scored with the word query in one product; the few columns of entities are then overwritten. A result
    that is a part of a tensor would be computed pair by pair, hence the copy.
    """
    bias = bias.to(key.dtype)
    torch.baddbmm(bias, query[0], key.mT, out=scores)
    if len(query) > 1 and n_word < key.shape[1]:
        scores[:, :, n_word:] = torch.baddbmm(bias[:, :, n_word:], query[1], key[:, n_word:].mT)
    torch.softmax(scores, dim=2, out=scores)


def _score_gradients(ds: Tensor, query: Tensor, key: Tensor, n_word: int, dquery: Tensor, dkey: Tensor) -> None:
    """From dS, fills the gradients of the (scaled) queries and of the keys, in the same way."""
    torch.bmm(ds.mT, query[0], out=dkey)
    if len(query) == 1:
        torch.bmm(ds, key, out=dquery[0])
        return
    torch.bmm(ds[:, :, :n_word], key[:, :n_word], out=dquery[0])
    torch.bmm(ds[:, :, n_word:], key[:, n_word:], out=dquery[1])
    if n_word < key.shape[1]:
        dkey[:, n_word:] = torch.bmm(ds[:, :, n_word:].mT, query[1])


def dropout_mask(like: Tensor, p: float, seed: int | None = None) -> Tensor:
    """0 with probability p, else 1 / (1 - p), in the shape and type of `like`; a function of the seed, drawn if not
    given from `generator`, so that `torch.manual_seed` rules.

    On a CPU 16 random bits an element decide (p is met to 1 in 65536), which is several times faster than `bernoulli_`.
    """
    seed = int(torch.randint(2**62, (), generator=generator())) if seed is None else seed % 2**62
    count = like.numel()
    words = np.random.Generator(np.random.SFC64(seed)).integers(2**64, size=(count + 3) // 4, dtype=np.uint64)
    keep = words.view(np.uint16)[:count] >= round(p * 65536)
    mask = np.multiply(keep, 1 / (1 - p), dtype=np.float32).reshape(like.shape)
    return torch.from_numpy(mask).to(like.dtype)


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


def _chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, dtype: torch.dtype, keep: bool
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Loss, hit, lse_n and, if they are kept, the p of every chunk and then all lse_nk [chunks, rows]."""
    rows, x, accum_dtype = len(hidden), hidden.to(dtype), torch.promote_types(dtype, torch.float32)
    keep = keep and rows * len(weight) * 4 <= KEPT_BYTES
    target_score, hit = hidden.new_zeros(rows, dtype=accum_dtype), torch.zeros_like(target, dtype=torch.bool)
    tops, lses, kept, buffer = [], [], [], None if keep else x.new_empty(CHUNK_BYTES // 4 + rows)
    for start, stop in chunks(rows, len(weight)):
        s = scores(x, weight, bias, start, stop, buffer)
        top = s.amax(1)
        row = ((target >= start) & (target < stop)).nonzero()[:, 0]
        target_score[row] = s[row, target[row] - start].to(accum_dtype)
        row = row[target_score[row] == top[row]]
        hit[row] = s[row].argmax(1) == target[row] - start
        p, lse = softmax(s, top, accum_dtype)
        tops.append(top)
        lses.append(lse)
        kept += [p.to(dtype)] if keep else []
    best, lses = torch.stack(tops).argmax(0), torch.stack(lses)
    hit &= best == target // chunk_size(rows)
    lse = lses.logsumexp(0)
    return lse - target_score, hit, lse, [*kept, lses] if keep else []


@torch.library.custom_op("luke_mini::chunked_cross_entropy_backward", mutates_args=())
def _cross_entropy_backward(
    g: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, lse: Tensor, kept: list[Tensor],
    dtype: torch.dtype, needs_hidden: bool, needs_weight: bool, needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of hidden, weight and bias; empty where not needed."""
    rows, x = len(hidden), hidden.to(dtype)
    dx, dw, db = _empty_gradients(hidden, weight, bias, needs_hidden, needs_weight, needs_bias)
    sum_dx = weight[target].to(dtype).to(lse.dtype).mul_(-g[:, None]) if needs_hidden else None
    buffer = None if kept else x.new_empty(CHUNK_BYTES // 4 + rows)
    for number, (start, stop) in enumerate(chunks(rows, len(weight))):
        if kept:
            p, part = kept[number], kept[-1][number]
        else:
            s = scores(x, weight, bias, start, stop, buffer)
            p, part = softmax(s, s.amax(1), lse.dtype)
        p, scale = p.to(dtype), (g * (part - lse).exp())[:, None]  # d = scale p is never made: it is large
        if needs_bias:
            db[start:stop] = (p.T @ scale.to(dtype))[:, 0]
        if needs_hidden:
            sum_dx += (p @ weight[start:stop].to(dtype)) * scale
        if needs_weight:
            put_product(dw[start:stop], p.T, x * scale.to(dtype))
    if needs_hidden:
        dx.copy_(sum_dx)
    if needs_weight:
        dw.index_add_(0, target, (x * -g[:, None]).to(dw.dtype))
    if needs_bias:
        db.index_add_(0, target, -g.to(db.dtype))
    return dx, dw, db


def _empty_gradients(hidden, weight, bias, *needed: bool) -> list[Tensor]:
    return [hidden.new_empty(t.shape if need else 0, dtype=(hidden if t is None else t).dtype)
            for t, need in zip((hidden, weight, bias), needed)]  # fmt: skip


def _cross_entropy_like(hidden, weight, bias, target, dtype, keep):
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


_cross_entropy = operator(
    "luke_mini::chunked_cross_entropy", _chunked_cross_entropy, _cross_entropy_like, _remember_cross_entropy,
    _cross_entropy_gradients,
)  # fmt: skip


def chunk_size(rows: int) -> int:
    size = max(1, CHUNK_BYTES // (4 * max(1, rows)))
    # A power of two: with sizes that change from step to step, bfloat16 products on a CPU are compiled every time.
    return 1 << size.bit_length() - 1


def chunks(rows: int, classes: int) -> list[tuple[int, int]]:
    """First class and the one after the last, for every chunk."""
    size = chunk_size(rows)
    return [(start, min(start + size, classes)) for start in range(0, classes, size)]


def scores(x: Tensor, weight: Tensor, bias: Tensor | None, start: int, stop: int, buffer: Tensor | None) -> Tensor:
    """Scores [rows, stop - start] of a chunk of classes, in the memory of `buffer` if there is one."""
    w = weight[start:stop].to(x.dtype).T
    out = None if buffer is None else buffer[: len(x) * (stop - start)].view(len(x), stop - start)
    return torch.mm(x, w, out=out) if bias is None else torch.addmm(bias[start:stop].to(x.dtype), x, w, out=out)


def softmax(s: Tensor, top: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """p of a chunk, in place unless `dtype` is wider, and its log-sum-exp. top: the largest score of each row."""
    p = torch.softmax(s, 1, out=s) if s.dtype == dtype else torch.softmax(s, 1, dtype=dtype)
    return p, top - p.amax(1).log()  # the largest p is 1 / sum_c exp(s_nc - top_n)


def put_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """out = a b"""
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)
