"""What several tests need: the real data where somebody has it, and a small cut of the built-in encyclopedia."""

import json
import os
import runpy
import struct
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parent.parent
PATHS = [str(ROOT), str(ROOT / "tests/bench")]
sys.path[:0] = PATHS
SHARED = ROOT.parent / "shared" / "data"

import closeness  # noqa: E402 (needs the path)
import tokenizer_texts  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--seed", type=int, default=0, help="other random inputs and weights in the numeric tests [0]")
    # The tests' tensors are small: a second thread only waits, on a busy machine for long.
    parser.addoption("--threads", type=int, default=1, help="threads of a product [1]")
    parser.addoption("--lines", type=int, default=400, help="lines of real text in the tokenizers' tests [400]")
    parser.addoption("--strings", type=int, default=500, help="random strings in the tokenizers' tests [500]")


def pytest_configure(config):
    closeness.SEED = config.getoption("--seed")
    torch.set_num_threads(config.getoption("--threads"))
    if vars(config.option).get("dist") == "load":  # `-n 2`, pytest-xdist: each file in one process, in our order
        config.option.dist, config.option.loadscopereorder = "loadfile", False


LONGEST = ("test_trainer", "test_kernels_aot", "test_entity_attention", "test_commands")


def pytest_collection_modifyitems(items):
    """The longest files first, so that no process waits for one of them in the end."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="module")
def output_of(request, tmp_path_factory):
    """What a process has printed, once it has ended; it must have ended well. A module lists its processes in PROCESSES:
    name -> arguments of Python, environment."""
    common = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    common |= {"PYTHONPATH": os.pathsep.join(PATHS), "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton"))}

    @cache
    def run(name: str) -> str:
        arguments, environment = request.module.PROCESSES[name]
        done = subprocess.run([sys.executable, *arguments], env=common | environment, cwd=ROOT, capture_output=True,
                              text=True)  # fmt: skip
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-3000:]
        return done.stdout

    return run


@pytest.fixture
def run_script(monkeypatch, capfd):
    """Runs a script (or, without `.py`, a module) as its command line does, but in this process."""

    def run(script, *arguments) -> subprocess.CompletedProcess:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        capfd.readouterr()
        status = 0
        try:
            if script.endswith(".py"):
                runpy.run_path(str(ROOT / script), run_name="__main__")
            else:
                runpy.run_module(script, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            status = end.code or 0
        return subprocess.CompletedProcess(sys.argv, status, *capfd.readouterr())

    return run


# For a process of its own: the largest memory it has had in use, in bytes. (ru_maxrss begins with its parent's.)
PEAK = """
def peak():
    import re
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
"""
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")


@pytest.fixture
def yardstick() -> float:
    """Processor seconds of a piece of Python, here and now: in these, a limit holds on a slow machine as well."""
    start = time.process_time()
    sorted(str(number) for number in range(300_000))
    return time.process_time() - start


def arrays_of(feature, max_mention: int = 30) -> dict:
    """The input of a task as Hugging Face has it."""
    from luke_mini import inputs

    (arrays,) = inputs.as_arrays([feature.sequence], max_mention)
    return arrays


def spelled(tiny, feature) -> str:
    return " ".join(tiny.tokenizer.pieces(feature.sequence.word_ids.tolist())).replace("Ġ", "_")


def task_model(tiny, task, labels, options=None, seed: int = 0):
    """A task's model with random weights, for the tiny checkpoint; without dropout."""
    from luke_mini.initialization import initialize

    shape = replace(tiny.config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = task.build_model(shape, tiny.entity_vocab, labels, options or task.Options())
    initialize(model, shape, closeness.seeded(seed))
    return model.eval()


def shared_data(name: str) -> Path:
    """A file of real data beside the repository; skips the test where there is none, as in a fresh clone."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs real data that is not part of the project: shared/data/{name} beside the repository")
    return path


class Example(NamedTuple):
    """One of `examples.Examples`, to be compared."""

    page_id: int
    word_ids: list[int]
    entity_ids: list[int]
    mention_spans: list[tuple[int, int]]


def flatten(examples: list[Example]):
    """As `examples.Examples`."""
    from luke_mini.examples import Examples

    pages, words, entities, spans = zip(*examples) if examples else ([],) * 4
    flat = (np.array([*chain(*lists)], np.int32) for lists in (words, entities, spans))
    words, entities, spans = zip(flat, ([*map(len, lists)] for lists in (words, entities, spans)))
    return Examples(words[0], np.array(words[1], np.int32), entities[0], np.array(entities[1], np.int32),
                    spans[0].reshape(-1, 2), np.array(pages, np.int32))  # fmt: skip


def listed(examples) -> list[Example]:
    """What `flatten` was given."""
    words, entities = (np.concatenate([[0], np.cumsum(n)]) for n in (examples.word_lengths, examples.entity_lengths))
    return [
        Example(page, examples.word_ids[first:end].tolist(), examples.entity_ids[start:stop].tolist(),
                [*map(tuple, examples.mention_spans[start:stop].tolist())])
        for page, (first, end), (start, stop) in zip(examples.page_ids.tolist(), pairwise(words), pairwise(entities))
    ]  # fmt: skip


def read_examples(folder: Path) -> list[Example]:
    """The examples of a data folder, read array by array as `examples.py` describes its files."""
    found = []
    for path in sorted(folder.glob("shard-*.bin")):
        data = path.read_bytes()
        magic, version, width, n, n_words, n_entities = struct.unpack_from("<8sIIQQQ", data)
        assert (magic, version) == (b"LUKESHRD", 1)
        kinds = [("<i8", n + 1), ("<i8", n + 1), ("<i4", n), ("<i4", n_entities), (f"<u{width}", n_words),
                 ("<u2", 2 * n_entities)]  # fmt: skip
        arrays, position = [], 40
        for kind, count in kinds:
            arrays.append(np.frombuffer(data, kind, count, position).tolist())
            position += count * np.dtype(kind).itemsize
        words, entities, page_ids, entity_ids, word_ids, spans = arrays
        assert position == len(data) and words[-1] == n_words and entities[-1] == n_entities
        spans = list(zip(spans[::2], spans[1::2]))
        for i in range(n):
            here = slice(entities[i], entities[i + 1])
            found.append(Example(page_ids[i], word_ids[words[i] : words[i + 1]], entity_ids[here], spans[here]))
    return found


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory) -> Path:
    """A data folder made by prepare_wiki.py from the first 200 articles of the built-in encyclopedia."""
    import prepare_wiki

    out = tmp_path_factory.mktemp("toyworld")
    prepare_wiki.main(f"--out {out} --max-pages 200 --vocab-size 1000 --max-seq-length 64 --workers 1".split())
    return out


@pytest.fixture(scope="session")
def some_strings(request) -> list[str]:
    return tokenizer_texts.random_strings(request.config.getoption("--strings"))


@pytest.fixture(scope="session")
def real_lines(request) -> list[str]:
    return tokenizer_texts.wiki_lines(shared_data("wiki"), request.config.getoption("--lines"))


@pytest.fixture(scope="session")
def xlmr_pieces() -> list[tuple[str, float]]:
    """XLM-R's pieces with their scores, special ones included, in the order of the ids."""
    lines = shared_data("tokenizers/xlmr_unigram.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [(json.loads(piece), float(score)) for piece, score in (line.split("\t") for line in lines)]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A checkpoint folder of a small model with random weights and a byte-level BPE of a few sentences."""
    from luke_mini import checkpoint, config, tokenizer_bpe
    from luke_mini.entity_vocab import EntityVocab
    from luke_mini.initialization import initialize
    from luke_mini.model import LukeForPretraining

    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    text = "Ada met Bo Berg, the mayor of Oslo. He is a chemist and works for Acme in Bergen; she was born in Norway."
    words = tokenizer_bpe.train([text] * 2, 380, tmp_path_factory.mktemp("words"))
    vocab = EntityVocab.from_titles(["[PAD]", "[UNK]", "[MASK]", "Oslo", "[MASK2]"])
    shape = config.ModelConfig(
        vocab_size=len(words), entity_vocab_size=len(vocab), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, entity_emb_size=16, initializer_range=0.1,
    )  # fmt: skip
    model = LukeForPretraining(shape)
    initialize(model, shape, seed=0)
    checkpoint.save(folder, model, words, vocab)
    return folder


@pytest.fixture(scope="session")
def tiny(tiny_checkpoint):
    """The tiny checkpoint, read."""
    from luke_mini import checkpoint

    return checkpoint.read(tiny_checkpoint)
