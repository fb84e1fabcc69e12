"""What the tests of the kernels need inside Triton's interpreter: working bfloat16, and a look at every access."""

import importlib.util
import itertools
import re
from pathlib import Path

import closeness
import numpy as np
import torch


def interpreted(file, *kinds):
    """The functions interpreted_* and mutant_* of a test file, each kind a process with the interpreter on, for
    conftest.output_of: whether a kernel is interpreted or compiled is decided when it is decorated."""
    options = [f"--seed={closeness.SEED}", f"--threads={torch.get_num_threads()}"]
    command = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", file, *options, "-o"]
    return {kind: ([*command, f"python_functions={kind}_*"], {"TRITON_INTERPRET": "1"}) for kind in kinds}


def expect_passed(output):
    assert re.search(r"\d+ passed", output) and not re.search(r"\d+ skipped", output), output


MUTANT_NUMBERS = itertools.count()


def load_mutant(module, old, new, folder):
    """The module with one piece of its text replaced, everywhere; its operators get a name of their own."""
    source = Path(module.__file__).read_text()
    assert old in source, "the mutant no longer applies"
    path = folder / "mutant.py"
    path.write_text(source.replace(old, new).replace("luke_mini::", f"mutant_{next(MUTANT_NUMBERS)}::"))
    spec = importlib.util.spec_from_file_location("mutant", path)
    mutant = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutant)
    return mutant


def repair_bfloat16(monkeypatch):
    """The interpreter keeps bfloat16 as raw 16-bit integers and multiplies these in `dot`, and its cast from float32
    truncates: widen before the product, round to nearest even in the cast. Nothing else computes in bfloat16."""
    from triton import language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    plain_dot, plain_cast = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def dot(self, a, b, *rest):
        return plain_dot(self, widened(a), widened(b), *rest)

    def cast(self, src, dst_type, *_):
        if dst_type.scalar == tl.bfloat16 and src.dtype.scalar == tl.float32:
            rounded = torch.from_numpy(np.ascontiguousarray(src.data)).to(torch.bfloat16).view(torch.int16)
            return TensorHandle(rounded.numpy().view(np.uint16), tl.bfloat16)
        return plain_cast(self, widened(src), dst_type)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", dot)
    for name in ("create_fp_to_fp", "create_fp_trunc", "create_fp_ext"):
        monkeypatch.setattr(InterpreterBuilder, name, cast)


class Guarded:
    """A kernel whose accesses are looked at: each inside a tensor, and how often each element is stored."""

    def __init__(self, kernel, monkeypatch):
        self.kernel, self.monkeypatch = kernel, monkeypatch

    def __getitem__(self, grid):
        def launch(*args, **options):
            from triton.runtime.interpreter import InterpreterBuilder

            tensors = {}
            for name, arg in zip(self.kernel.arg_names, args, strict=False):
                arg = getattr(arg, "base", arg)
                if isinstance(arg, torch.Tensor) and arg.numel():
                    tensors.setdefault((arg.data_ptr(), arg.stride()), arg)
            maps = [(t.data_ptr(), t.element_size(), self.map_of(t), np.zeros(self.span(t), np.int64))
                    for t in tensors.values()]  # fmt: skip
            with self.monkeypatch.context() as patch:
                for name, position in (("create_masked_load", 1), ("create_masked_store", 2)):
                    original = getattr(InterpreterBuilder, name)

                    def guarded(builder, ptrs, *rest, original=original, position=position):
                        addresses = np.asarray(ptrs.data)[np.asarray(rest[position - 1].data, dtype=bool)]
                        self.look(addresses, maps, store=position == 2)
                        return original(builder, ptrs, *rest)

                    patch.setattr(InterpreterBuilder, name, guarded_with_keywords(guarded))
                self.kernel[grid](*args, **options)
            self.stores = {base: counts[valid] for base, _, valid, counts in maps if counts.any()}
            LAUNCHES.append(self.stores)

        return launch

    @staticmethod
    def span(t):
        return sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) + 1

    def map_of(self, t):
        valid = np.zeros(self.span(t), bool)
        torch.as_strided(torch.from_numpy(valid), t.shape, t.stride()).fill_(True)
        return valid

    def look(self, addresses, maps, store):
        if not addresses.size:
            return
        for base, size, valid, counts in maps:
            inside = base <= int(addresses.min()) and int(addresses.max()) < base + size * len(valid)
            index, rest = divmod(addresses.astype(np.int64) - base, size)
            if inside and not rest.any() and valid[index].all():
                if store:
                    np.add.at(counts, index, 1)
                return
        raise AssertionError("an access is not inside one tensor")


LAUNCHES = []


def guarded_with_keywords(guarded):
    def both(builder, ptrs, *rest, **keywords):
        return guarded(builder, ptrs, *rest, *keywords.values())

    return both
