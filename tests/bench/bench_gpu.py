"""The kernels on a GPU: are they right, how long do they take, which tiles are best.

    python tests/bench/bench_gpu.py --lease [--json out.json]        all of it, 8 minutes at most
    python tests/bench/bench_gpu.py [--only attention]               one part: check, attention, cross-entropy, tiles

*check*: output and gradients against the equations in float64, one query and two, with dropout 0.1 (the mask is read
off one-hot values), and the loss and gradients of the cross-entropy. What is wrong ends the program.
*attention*: forward and forward + backward, bfloat16, base (12 heads) and large (16), one query and two, dropout 0 and
0.1, on sequences as long as those of English Wikipedia's examples (471 words on average, 19 mentions):
    kernels       `kernels/entity_attention.py` on the packed batch
    first rung    `kernels/entity_attention_simple.py` (two queries, no dropout)
    eager         padded; four products, three concatenations, mask, softmax, product: what transformers' layer computes
    concatenated  padded; one scaled_dot_product_attention with [q_word, q_entity] against [k, 0] or [0, k]
    merged        padded; one attention over words, one over entities, joined by their log-sum-exp, backward as well
    flash         packed; PyTorch's varlen_attn on the concatenated queries, where this torch has it
    flex          packed; FlexAttention on the concatenated queries, a block mask of the sequences, compiled
*cross-entropy*: forward and backward, 500,000 classes of 256 features with a table in float32, as under autocast, and
in bfloat16, 50,000 of 768; 32 to 2,048 rows: from which number on `kernels` beats `full` is the rule for `ops.py`:
    kernels       `kernels/linear_cross_entropy.py`
    full          F.linear and F.cross_entropy
    torch         F.linear_cross_entropy with its chunks of rows, where this torch has them
*tiles*: every tile of SWEEP that this GPU can run, best first, as lines for `TILES`.

Milliseconds are medians, methods taking turns, with the L2 cache overwritten before each step; all events are recorded
first and waited for once. TFLOP/s by the FLOPs that the task needs (two products forward, five more backward; three for
the cross-entropy); peak memory. A method that fails is named with its error. The figures are still to be taken.
"""
import argparse
import itertools
import json
import statistics
import time
from itertools import accumulate

import project  # noqa: F401 (finds kernels)
import torch
import torch.nn.functional as F

from kernels import entity_attention as attention
from kernels import entity_attention_simple as simple
from kernels import linear_cross_entropy as cross_entropy

DEVICE = "cuda"
BATCH, HEADS, ROUNDS = 32, {"base": 12, "large": 16}, 20
ROWS = 32, 64, 128, 256, 512, 1024, 2048
TABLES = (500_000, 256, torch.float32), (500_000, 256, torch.bfloat16), (50_265, 768, torch.bfloat16)
SWEEP = [(*sides, warps, stages) for sides in itertools.product((64, 128), (32, 64, 128))
         for warps in (4, 8) for stages in (2, 3)]  # fmt: skip
LEASE_SECONDS = 8 * 60

# ---------------------------------------------------------------- attention, each on padded [batch, heads, rows, d]


def eager(q_word, q_entity, key, value, n_word, mask):
    """transformers' form; mask [batch, 1, 1, rows] is added: 0, or a large negative number for padding."""
    words, entities = key[:, :, :n_word].mT, key[:, :, n_word:].mT
    w2w, w2e = q_word[:, :, :n_word] @ words, q_entity[:, :, :n_word] @ entities
    e2w, e2e = q_word[:, :, n_word:] @ words, q_entity[:, :, n_word:] @ entities
    scores = torch.cat([torch.cat([w2w, e2w], 2), torch.cat([w2e, e2e], 2)], 3) / key.shape[3] ** 0.5
    return torch.softmax(scores + mask, 3) @ value


def concatenated(q_word, q_entity, key, value, n_word, mask):
    """Twice the head size: a word key meets q_word and zeros, an entity key zeros and q_entity."""
    zeros = torch.zeros_like(key)
    words, entities = (slice(0, n_word), slice(n_word, None))
    wide_key = torch.cat([torch.cat([key[:, :, words], zeros[:, :, words]], 3),
                          torch.cat([zeros[:, :, entities], key[:, :, entities]], 3)], 2)  # fmt: skip
    query = torch.cat([q_word, q_entity], 3)
    return F.scaled_dot_product_attention(query, wide_key, value, attn_mask=mask, scale=key.shape[3] ** -0.5)


def merged(q_word, q_entity, key, value, n_word, mask):
    return Merged.apply(q_word, q_entity, key, value, n_word, mask)


class Merged(torch.autograd.Function):
    """o = sum of o_k exp(lse_k - lse) over the two calls. Given the joint o and lse, each call's own backward pass is
    the right one for its share of the keys."""

    @staticmethod
    def forward(ctx, q_word, q_entity, key, value, n_word, mask):
        calls = [(q, key[:, :, part], value[:, :, part], mask[:, :, :, part])
                 for q, part in ((q_word, slice(0, n_word)), (q_entity, slice(n_word, None)))]  # fmt: skip
        (o1, lse1, *rest1), (o2, lse2, *rest2) = (_attention_and_lse(*call) for call in calls)
        lse = torch.logaddexp(lse1, lse2)
        out = (o1 * (lse1 - lse).exp()[..., None] + o2 * (lse2 - lse).exp()[..., None]).to(value.dtype)
        ctx.save_for_backward(*calls[0], *calls[1], out, lse)
        ctx.rest = rest1, rest2
        return out

    @staticmethod
    def backward(ctx, grad):
        *calls, out, lse = ctx.saved_tensors
        (dq1, dk1, dv1), (dq2, dk2, dv2) = (
            _attention_gradients(grad, *call, out, lse, rest)
            for call, rest in zip((calls[:4], calls[4:]), ctx.rest, strict=True)
        )
        return dq1, dq2, torch.cat([dk1, dk2], 2), torch.cat([dv1, dv2], 2), None, None


def _attention_and_lse(q, k, v, mask):
    mask = mask.expand(-1, q.shape[1], q.shape[2], -1)
    if not q.is_cuda:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, False, attn_mask=mask)
    out, lse, *random = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, mask, True)
    return out, lse[:, :, : q.shape[2]], *random


def _attention_gradients(grad, q, k, v, mask, out, lse, rest):
    mask = mask.expand(-1, q.shape[1], q.shape[2], -1)
    if not q.is_cuda:
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        return backward(grad, q, k, v, out, lse, 0.0, False, attn_mask=mask)
    lse = F.pad(lse, (0, -lse.shape[2] % 32), value=float("inf"))  # as the forward pass had it
    backward = torch.ops.aten._scaled_dot_product_efficient_attention_backward
    return backward(grad, q, k, v, mask, out, lse, *rest, 0.0, [True, True, True, False])[:3]


ATTENTION = {"eager": eager, "concatenated": concatenated, "merged": merged}


def attention_inputs(words, entities, heads, head_dim, dtype, device, seed=0):
    """The same contents twice: four packed tensors with their packing, four padded ones with n_word and mask; and where
    the packed rows lie in [batch, rows] of the padded ones."""
    generator = torch.Generator().manual_seed(seed)
    n_word = max(words)
    n_row = -(-(n_word + max(entities)) // 16) * 16  # PyTorch's fast forms want a mask of whole 16s
    places = [b * n_row + i for b, n in enumerate(words) for i in range(n)]
    places += [b * n_row + n_word + i for b, n in enumerate(entities) for i in range(n)]
    places = torch.tensor(places, device=device)
    packed = [torch.randn(len(places), heads, head_dim, generator=generator).to(device, dtype) for _ in range(4)]
    padded = []
    for x in packed:
        rows = x.new_zeros(len(words) * n_row, heads, head_dim).index_copy(0, places, x)
        padded.append(rows.view(len(words), n_row, heads, head_dim).transpose(1, 2).contiguous())
    mask = torch.full((len(words) * n_row,), -1e4, dtype=dtype, device=device).index_fill(0, places, 0.0)
    starts = [accumulate(words, initial=0), accumulate(entities, initial=sum(words))]
    segments = torch.tensor(list(zip(starts[0], words, starts[1], entities)), dtype=torch.int32, device=device)
    packing = segments, n_word, max(entities)
    return packed, packing, padded, n_word, mask.view(len(words), 1, 1, n_row), places


def wikipedia_lengths(batch):
    generator = torch.Generator().manual_seed(0)
    words = (512 - torch.empty(batch).exponential_(1 / 41, generator=generator)).clamp(64, 512)
    entities = torch.empty(batch).exponential_(1 / 19, generator=generator).clamp(1, 112)
    return words.int().tolist(), entities.int().tolist()


def wide_queries(q_word, q_entity, key, n_words):
    """The concatenated form on packed rows: queries and keys of twice the head size."""
    head_dim = key.shape[2]
    wide_key = torch.cat([F.pad(key[:n_words], (0, head_dim)), F.pad(key[n_words:], (head_dim, 0))])
    return torch.cat([q_word, q_word if q_entity is None else q_entity], 2), wide_key


def by_sequence(segments):
    """Packed rows, sequence after sequence: their order, and where each sequence begins, int32 [batch + 1]."""
    rows = [torch.arange(first, first + n) for w, n_w, e, n_e in segments.tolist() for first, n in ((w, n_w), (e, n_e))]
    lengths = (segments[:, 1] + segments[:, 3]).tolist()
    return torch.cat(rows).to(segments.device), torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


def flash(packing, n_words):
    from torch.nn.attention.varlen import varlen_attn

    order, starts = by_sequence(packing[0])
    starts, longest = starts.to(order.device), int(starts.diff().max())

    def run(q_word, q_entity, key, value):
        query, wide_key = wide_queries(q_word, q_entity, key, n_words)
        wide_value = F.pad(value, (0, value.shape[2]))  # flash wants heads of one size
        query = query * 2**0.5  # its scale is 1 / sqrt(twice the head size)
        out = varlen_attn(*(x[order] for x in (query, wide_key, wide_value)), starts, starts, longest, longest)
        return torch.empty_like(value).index_copy(0, order, out[:, :, : value.shape[2]])

    return run


def flex(packing, n_words):
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    order, starts = by_sequence(packing[0])
    sequence = torch.repeat_interleave(torch.arange(len(starts) - 1), starts.diff()).to(order.device)
    same = lambda b, h, i, j: sequence[i] == sequence[j]  # noqa: E731
    mask = create_block_mask(same, None, None, len(order), len(order), device=order.device.type)
    compiled = torch.compile(flex_attention, dynamic=False)

    def run(q_word, q_entity, key, value):
        query, wide_key = wide_queries(q_word, q_entity, key, n_words)
        tensors = (x[order].transpose(0, 1)[None] for x in (query, wide_key, value))
        out = compiled(*tensors, block_mask=mask, scale=key.shape[2] ** -0.5)[0].transpose(0, 1)
        return torch.empty_like(value).index_copy(0, order, out)

    return run


PACKED = {"flash": flash, "flex": flex}  # packing, number of words -> function of the four packed tensors


def attention_steps(batch, heads, backward, two_queries=True, dropout=0.0):
    """name -> function of no arguments; and the FLOPs of the task. Rivals have neither one query nor dropout."""
    words, entities = wikipedia_lengths(batch)
    packed, packing, padded, n_word, mask, _ = attention_inputs(words, entities, heads, 64, torch.bfloat16, DEVICE)
    packed, padded = ([x.requires_grad_(backward) for x in tensors] for tensors in (packed, padded))
    seed = torch.ones(1, dtype=torch.int64, device=DEVICE) if dropout else None

    def finish(out, leaves):
        return torch.autograd.grad(out, leaves, torch.ones_like(out)) if backward else out

    def kernels():
        inputs = packed if two_queries else [packed[0], None, *packed[2:]]
        out = attention.entity_attention(*inputs, *packing, dropout, seed)
        return finish(out, [x for x in inputs if x is not None])

    def on_packed(name):  # what is set up once is set up in the first step: it may fail there
        made = []

        def step():
            made.extend([] if made else [PACKED[name](packing, sum(words))])
            return finish(made[0](*packed), packed)

        return step

    steps = {"kernels": kernels}
    if two_queries and not dropout:
        steps["first rung"] = lambda: finish(simple.SimpleAttention.apply(*packed, packing[0]), packed)
        for name, method in ATTENTION.items():
            steps[name] = lambda method=method: finish(method(*padded, n_word, mask), padded)
        steps |= {name: on_packed(name) for name in PACKED}
    scores = heads * sum((w + e) ** 2 for w, e in zip(words, entities, strict=True))
    return steps, (7 if backward else 2) * 2 * scores * 64


# ---------------------------------------------------------------- cross-entropy


def full(hidden, weight, bias, target):
    return F.cross_entropy(F.linear(hidden, weight, bias).float(), target)


def chunks_of_rows(hidden, weight, bias, target):
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight, target, linear_bias=bias, options=options)


def fused(hidden, weight, bias, target):
    return cross_entropy.linear_cross_entropy(hidden, weight, bias, target)[0].mean()


CROSS_ENTROPY = {"kernels": fused, "full": full, "torch": chunks_of_rows}


def cross_entropy_steps(rows, classes, features, dtype, device, table=None):
    """table: the type of weight and bias; bfloat16 beside float32 is multiplied as under autocast."""
    generator = torch.Generator().manual_seed(0)
    shapes = (rows, features), (classes, features), (classes,)
    types = dtype, table or dtype, table or dtype
    leaves = [(torch.randn(s, generator=generator) / 8).to(device, t).requires_grad_() for s, t in zip(shapes, types)]
    target = torch.randint(classes, (rows,), generator=generator).to(device)
    names = [name for name in CROSS_ENTROPY if name != "torch" or hasattr(torch.nn, "LinearCrossEntropyOptions")]

    def step(method):
        with torch.autocast(torch.device(device).type, dtype=dtype, enabled=types[0] != types[1]):
            loss = method(*leaves, target)
        return torch.autograd.grad(loss, leaves)

    return {name: lambda m=CROSS_ENTROPY[name]: step(m) for name in names}, 3 * 2 * rows * classes * features


# ---------------------------------------------------------------- checking


def equations(q_word, q_entity, key, value, words, entities, mask=1.0):
    """One sequence, [rows, heads, d]; mask [heads, rows, rows] on the weights."""
    scores = [torch.einsum("ihd,jhd->hij", q, key[part]) for q, part in ((q_word, slice(0, words)),
                                                                         (q_entity, slice(words, None)))]  # fmt: skip
    weights = torch.softmax(torch.cat(scores, 2) / key.shape[2] ** 0.5, 2) * mask
    return torch.einsum("hij,jhd->ihd", weights, value)


def check(two_queries, dropout, dtype):
    """The largest relative error of output and gradients. 48 words and 16 entities: their values can be one-hot."""
    words, entities, heads, rows = 48, 16, 2, 64
    generator, p = torch.Generator().manual_seed(1), dropout
    tensors = [torch.randn(rows, heads, 64, generator=generator).to(DEVICE, dtype) for _ in range(5)]
    segments = torch.tensor([[0, words, words, entities]], dtype=torch.int32, device=DEVICE)
    rest = segments, words, entities, p, torch.full((1,), 3, dtype=torch.int64, device=DEVICE)
    *inputs, d_out = tensors
    one_hot = torch.eye(rows, dtype=dtype, device=DEVICE)[:, None].expand(-1, heads, -1).contiguous()
    same = torch.zeros_like(one_hot)
    kept = attention.entity_attention(same, same, same, one_hot, *rest).transpose(0, 1) > 0
    mask = kept.double() * 65536 / round((1 - p) * 65536)
    leaves = [x.clone().requires_grad_() for x in inputs]
    exact = [x.double().requires_grad_() for x in inputs]
    used = (0, 1, 2, 3) if two_queries else (0, 2, 3)
    out = attention.entity_attention(leaves[0], leaves[1] if two_queries else None, *leaves[2:], *rest)
    wanted = equations(exact[0], exact[1 if two_queries else 0], *exact[2:], words, entities, mask)
    found = [out, *torch.autograd.grad(out, [leaves[i] for i in used], d_out)]
    right = [wanted, *torch.autograd.grad(wanted, [exact[i] for i in used], d_out.double())]
    error = max(float(((a - b).norm() / b.norm()).detach()) for a, b in zip(found, right, strict=True))
    return error, float(kept.double().mean())


def check_all():
    rows = []
    for dtype, allowed in ((torch.float16, 1e-3), (torch.bfloat16, 8e-3), (torch.float32, 1e-5)):
        for two_queries, dropout in itertools.product((True, False), (0.0, 0.1)):
            error, share = check(two_queries, dropout, dtype)
            rows.append({"type": str(dtype), "queries": 1 + two_queries, "dropout": dropout, "error": f"{error:.1e}",
                         "kept": round(share, 3)})  # fmt: skip
            if not (error < allowed and abs(share - 1 + dropout) < 0.02):
                raise SystemExit(f"attention is wrong: {rows[-1]}")
    for table in (torch.float32, torch.bfloat16):
        steps, _ = cross_entropy_steps(100, 3001, 64, torch.bfloat16, DEVICE, table)
        exact, _ = cross_entropy_steps(100, 3001, 64, torch.float64, DEVICE)
        error = max(float((a - b).norm() / b.norm()) for a, b in zip(steps["kernels"](), exact["full"](), strict=True))
        rows.append({"cross-entropy, table": str(table), "error": f"{error:.1e}"})
        if not error < 2e-2:  # the exact one's inputs are not rounded to bfloat16
            raise SystemExit(f"cross-entropy is wrong: {rows[-1]}")
    return rows


# ---------------------------------------------------------------- measuring


def milliseconds(steps, rounds):
    """name -> all its times. Every event is recorded before any is waited for."""
    flush = torch.empty(64 << 20, dtype=torch.int32, device=DEVICE)  # 256 MB: more than any L2 cache
    events = {name: [] for name in steps}
    for _, (name, step) in itertools.product(range(rounds), steps.items()):
        flush.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        step()
        end.record()
        events[name].append((begin, end))
    torch.cuda.synchronize()
    return {name: [begin.elapsed_time(end) for begin, end in pairs] for name, pairs in events.items()}


def measure(steps, flops, rounds):
    """Rows of the table. A method that fails at first is left out with its error."""
    memory, rows = {}, []
    for name, step in steps.items():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        try:
            for _ in range(3):
                step()
            torch.cuda.synchronize()
            memory[name] = (torch.cuda.max_memory_allocated() - before) / 2**20
        except (RuntimeError, ValueError, TypeError, ImportError) as error:
            rows.append({"method": name, "error": (str(error).splitlines() or [type(error).__name__])[0]})
    for name, times in milliseconds({name: steps[name] for name in memory}, rounds).items():
        median = statistics.median(times)
        rows.append({"method": name, "ms": round(median, 4), "TFLOP/s": round(flops / median / 1e9, 1),
                     "MB": round(memory[name])})  # fmt: skip
    return rows


def attention_cases():
    for (size, heads), direction in itertools.product(HEADS.items(), ("forward", "forward + backward")):
        for queries, dropout in ((2, 0.0), (2, 0.1), (1, 0.1)):
            case = attention_steps(BATCH, heads, direction != "forward", queries == 2, dropout)
            yield f"attention, {size}, {queries} queries, dropout {dropout}, {direction}", case


def cross_entropy_cases():
    for (classes, features, table), rows in itertools.product(TABLES, ROWS):
        case = cross_entropy_steps(rows, classes, features, torch.bfloat16, DEVICE, table)
        yield f"cross-entropy, {rows} rows, {classes} classes, {features} features, {table}", case


def sweep(deadline):
    """Times of every kernel with every tile, best first: {"forward, dropout 0.0": [(ms, Tile), ...]}."""
    arch, found = attention.architecture(torch.device(DEVICE)), {}
    chosen = attention.choose_tile
    for dropout, kernel in itertools.product((0.0, 0.1), ("forward", "query_gradient", "key_gradient")):
        steps, _ = attention_steps(BATCH, HEADS["base"], kernel != "forward", True, dropout)
        found[f"{kernel}, dropout {dropout}"] = times = []
        for block_m, block_n, warps, stages in SWEEP:
            if time.monotonic() > deadline:
                break
            tile = attention.Tile(block_m, block_n, min(block_n, 32 if kernel != "key_gradient" else 64), warps, stages,
                                  arch >= 90)  # fmt: skip
            attention.choose_tile = lambda name, *rest: tile if name == kernel else chosen(name, *rest)
            try:
                steps["kernels"]()
                times.append((statistics.median(milliseconds({"": steps["kernels"]}, 10)[""]), tile))
            except Exception as error:  # out of shared memory, registers or a bug of the compiler: no tile for us
                print("    no", tile, str(error).splitlines()[:1], flush=True)
            finally:
                attention.choose_tile = chosen
        times.sort()
        for ms, tile in times[:3]:
            print(f"    ({kernel!r}, {arch}) dropout {dropout}: {tile}  {ms:.4f} ms", flush=True)
    return {name: [(ms, list(tile)) for ms, tile in times] for name, times in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lease", action="store_true", help="everything, within 8 minutes, the most needed first")
    parser.add_argument("--only", choices=["check", "attention", "cross-entropy", "tiles"])
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("needs a GPU; bench_kernels.py tells what can be told without one")
    if not (args.lease or args.only):
        parser.error("--lease or --only what?")
    deadline = time.monotonic() + (LEASE_SECONDS if args.lease else float("inf"))
    results = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    print(results, flush=True)

    def wanted(part):
        return args.lease or args.only == part

    def keep(name, rows):
        results[name] = rows
        print(name, *("    " + "  ".join(f"{k} {v}" for k, v in row.items()) for row in rows), sep="\n", flush=True)
        if args.json:  # after every part: a lease may end at any time
            with open(args.json, "w") as file:
                json.dump(results, file, indent=1)

    if wanted("check"):
        keep("check", check_all())
    for part, cases in (("attention", attention_cases), ("cross-entropy", cross_entropy_cases)):
        for name, case in cases() if wanted(part) else ():
            # a lease keeps half of its time for the tiles
            if args.lease and time.monotonic() > deadline - LEASE_SECONDS * (0.5 if part == "attention" else 0.3):
                break
            keep(name, measure(*case, ROUNDS))
    if wanted("tiles"):
        keep("tiles", [{name: times[:3]} for name, times in sweep(deadline - 10).items()])


if __name__ == "__main__":
    main()
