"""The kernels against other ways to the same numbers, timed on a GPU.

    python tests/bench/bench_gpu.py [--json out.json] [--batch 32] [--rounds 20]

Attention, forward and forward + backward, bfloat16, base (12 heads) and large (16), on sequences as long as those of
English Wikipedia's examples (471 words on average, 19 mentions):
    kernels       `kernels/entity_attention.py` on the packed batch
    eager         padded; four products, three concatenations, mask, softmax, product: what transformers' layer computes
    concatenated  padded; one scaled_dot_product_attention with [q_word, q_entity] against [k, 0] or [0, k]
    merged        padded; one attention over words, one over entities, joined by their log-sum-exp, backward as well
Cross-entropy, forward and backward, 1,024 rows over 500,000 classes of 256 features and 50,000 of 768:
    kernels       `kernels/linear_cross_entropy.py`
    full          F.linear and F.cross_entropy
    torch         F.linear_cross_entropy with its chunks of rows, where this torch has them
A table and JSON: milliseconds (median, methods taking turns), TFLOP/s by the FLOPs that the task needs (two products
forward, five more backward; three for the cross-entropy), peak memory. A method that fails is named with its error.

That all methods compute the same is checked on a CPU by the tests, and this far it is where they have run: the figures
are still to be taken. No kernels of ours for the rest of the layer, by counting (512 words, 128 entities, base, bf16: a
row tensor A is 1 MB): dropout + residual + LayerNorm moves 3 A forward and 4 to 5 A backward if fused by hand, and
torch.compile's fusion moves the same forward and 2 A more backward: 4 MB a layer of some 300 MB that eager attention
moved. The entity embedding's mean of positions is an embedding bag already, once a forward pass.
"""
import argparse
import json
import statistics

import project  # noqa: F401 (finds kernels)
import torch
import torch.nn.functional as F

from kernels import entity_attention as attention
from kernels import linear_cross_entropy as cross_entropy

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
    n_word, n_row = max(words), max(words) + max(entities)
    places = [b * n_row + i for b, n in enumerate(words) for i in range(n)]
    places += [b * n_row + n_word + i for b, n in enumerate(entities) for i in range(n)]
    places = torch.tensor(places, device=device)
    packed = [torch.randn(len(places), heads, head_dim, generator=generator).to(device, dtype) for _ in range(4)]
    padded = []
    for x in packed:
        rows = x.new_zeros(len(words) * n_row, heads, head_dim).index_copy(0, places, x)
        padded.append(rows.view(len(words), n_row, heads, head_dim).transpose(1, 2).contiguous())
    mask = torch.full((len(words) * n_row,), -1e4, dtype=dtype, device=device).index_fill(0, places, 0.0)
    cumulative = [torch.tensor([0, *n], device=device).cumsum(0).int() for n in (words, entities)]
    packing = attention.pack(*cumulative, n_word, max(entities))
    return packed, packing, padded, n_word, mask.view(len(words), 1, 1, n_row), places


def wikipedia_lengths(batch):
    generator = torch.Generator().manual_seed(0)
    words = (512 - torch.empty(batch).exponential_(1 / 41, generator=generator)).clamp(64, 512)
    entities = torch.empty(batch).exponential_(1 / 19, generator=generator).clamp(1, 112)
    return words.int().tolist(), entities.int().tolist()


def attention_steps(batch, heads, dtype, device, backward):
    """name -> function of no arguments; and the FLOPs of the task."""
    words, entities = wikipedia_lengths(batch)
    packed, packing, padded, n_word, mask, _ = attention_inputs(words, entities, heads, 64, dtype, device)
    packed, padded = ([x.requires_grad_(backward) for x in tensors] for tensors in (packed, padded))

    def finish(out, leaves):
        return torch.autograd.grad(out, leaves, torch.ones_like(out)) if backward else out

    steps = {"kernels": lambda: finish(attention.entity_attention(*packed, packing), packed)}
    for name, method in ATTENTION.items():
        steps[name] = lambda method=method: finish(method(*padded, n_word, mask), padded)
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


def cross_entropy_steps(rows, classes, features, dtype, device):
    generator = torch.Generator().manual_seed(0)
    shapes = (rows, features), (classes, features), (classes,)
    leaves = [(torch.randn(s, generator=generator) / 8).to(device, dtype).requires_grad_() for s in shapes]
    target = torch.randint(classes, (rows,), generator=generator).to(device)
    names = [name for name in CROSS_ENTROPY if name != "torch" or hasattr(torch.nn, "LinearCrossEntropyOptions")]
    steps = {n: lambda m=CROSS_ENTROPY[n]: torch.autograd.grad(m(*leaves, target), leaves) for n in names}
    return steps, 3 * 2 * rows * classes * features


# ---------------------------------------------------------------- measuring


def measure(steps, flops, rounds):
    """Rows of the table. Methods take turns; a method that fails at first is left out with its error."""
    times, rows = {}, []
    for name, step in steps.items():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        try:
            for _ in range(3):
                step()
            torch.cuda.synchronize()
            times[name] = [], (torch.cuda.max_memory_allocated() - before) / 2**20
        except (RuntimeError, ValueError, TypeError) as error:
            rows.append({"method": name, "error": str(error).splitlines()[0]})
    for _ in range(rounds):
        for name, (milliseconds, _) in times.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            steps[name]()
            end.record()
            end.synchronize()
            milliseconds.append(begin.elapsed_time(end))
    for name, (milliseconds, megabytes) in times.items():
        median = statistics.median(milliseconds)
        rows.append({"method": name, "ms": round(median, 3), "TFLOP/s": round(flops / median / 1e9, 1),
                     "MB": round(megabytes)})  # fmt: skip
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32, help="sequences [%(default)s]")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", help="file to write the numbers to")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("needs a GPU; bench_kernels.py tells what can be told without one")
    cases = {}
    for size, heads in (("base", 12), ("large", 16)):
        for direction in ("forward", "forward + backward"):
            case = attention_steps(args.batch, heads, torch.bfloat16, "cuda", direction != "forward")
            cases[f"attention, {size}, {direction}"] = case
    results = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    for name, case in cases.items():
        results[name] = measure(*case, args.rounds)
    for shape in ((1024, 500_000, 256), (1229, 50_265, 768)):
        name = "cross-entropy, {} rows, {} classes, {} features".format(*shape)
        results[name] = measure(*cross_entropy_steps(*shape, torch.bfloat16, "cuda"), args.rounds)
    for name, rows in results.items():
        print(name, rows if isinstance(rows, str) else "", flush=True)
        for row in rows if isinstance(rows, list) else ():
            print("   ", "  ".join(f"{key} {value}" for key, value in row.items()))
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
