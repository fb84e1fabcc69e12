"""Seconds and memory that loading weights takes, beside reading the file's bytes and beside transformers.

    python tests/bench/bench_checkpoint_loading.py [--entities 500000] [--rounds 5]

A random base-size LUKE is written to a temporary folder as model.safetensors and as pytorch_model.bin. Every loading
runs in a process of its own; seconds are taken around the call, with the file in the page cache; memory is the growth
of the process's peak (ru_maxrss) during it, relative to the file's size. The median of the rounds, the kinds in turn.
The limits of the project: the time of reading plus 2 s, and 1.2 times the file.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import project  # noqa: F401 (finds luke_mini)

KINDS = ("read bytes", "luke_mini safetensors", "luke_mini bin", "transformers safetensors", "transformers bin")


def write(folder: Path, entities: int) -> None:
    import torch
    from safetensors.torch import load_file

    from luke_mini import checkpoint
    from luke_mini.config import LUKE_BASE
    from luke_mini.model import LukeForPretraining

    (folder / "safetensors").mkdir()
    (folder / "bin").mkdir()
    model = LukeForPretraining(replace(LUKE_BASE, entity_vocab_size=entities))
    checkpoint.write(folder / "safetensors", model, None, None)
    (folder / "bin/config.json").write_bytes((folder / "safetensors/config.json").read_bytes())
    torch.save(load_file(folder / "safetensors/model.safetensors"), folder / "bin/pytorch_model.bin")


def measure(kind: str, folder: Path) -> tuple[float, float]:
    """Seconds, and growth of the peak memory in bytes; what is imported before is not counted."""
    peer, _, form = kind.rpartition(" ")
    form = form if form in ("safetensors", "bin") else "safetensors"
    if peer == "luke_mini":
        from luke_mini import checkpoint

        def load():
            return checkpoint.build(checkpoint.read(folder / form, vocabularies=False))

    elif peer == "transformers":
        import transformers

        def load():
            return transformers.LukeForMaskedLM.from_pretrained(folder / form)

    else:

        def load():
            return (folder / "safetensors/model.safetensors").read_bytes()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    loaded = load()
    if hasattr(loaded, "parameters"):  # a loader that maps the file into memory has not read it yet
        total = sum(float(parameter.detach().view(-1)[::1024].sum()) for parameter in loaded.parameters())
        assert total == total
    seconds = time.perf_counter() - start
    return seconds, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(*measure(arguments.one[0], Path(arguments.one[1])))
        return
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); "
                        f"import bench_checkpoint_loading as b; b.write(b.Path({temporary!r}), {arguments.entities})"],
                       check=True)  # fmt: skip
        size = (Path(temporary) / "safetensors/model.safetensors").stat().st_size
        found = {kind: [] for kind in KINDS}
        for _ in range(arguments.rounds):
            for kind in KINDS:
                command = [sys.executable, __file__, "--one", kind, temporary]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[kind].append(tuple(map(float, out.split())))
    print(f"file {size / 1e9:.2f} GB, {arguments.entities:,} entities, {arguments.rounds} rounds, medians")
    for kind, rounds in found.items():
        seconds, memory = (statistics.median(values) for values in zip(*rounds))
        print(f"{kind:26} {seconds:6.2f} s   peak memory + {memory / size:.2f} x the file")


if __name__ == "__main__":
    main()
