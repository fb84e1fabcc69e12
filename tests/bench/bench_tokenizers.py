"""How fast our tokenizers are beside transformers and the Rust tokenizers library, on the same texts, in one thread.

    python tests/bench/bench_tokenizers.py BPE_FOLDER TEXT_FILE [--texts N] [--rounds N]
    python tests/bench/bench_tokenizers.py BPE_FOLDER DUMP.xml.bz2

BPE_FOLDER: vocab.json and merges.txt, RoBERTa's for instance. The words of a plain text or of a dump's articles are cut
into texts of 40 words. Two tasks: whole texts (ids), and texts with 50 mentions of 1 to 6 words, whose borders cut them
into segments. Takes part what can be imported: transformers 4 has a LukeTokenizer in Python, transformers 5 one on top
of Rust; to have the former, run this in a virtual environment of its own, with numpy. "cold": the first round of a new
tokenizer, whose memory is empty. Every round gives every tokenizer all texts, one after the other, so that a busy
machine is busy for all; CPU times, medians. Only the ratios carry over to other machines.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import project  # noqa: F401 (finds luke_mini)

from luke_mini import tokenizer_bpe, wiki_dump, wikitext


def make_texts(path: Path, count: int) -> list[tuple[str, list[int]]]:
    """Texts of 40 words, each with the cuts of 50 mentions: a border moves before the space that stands before it."""
    if path.name.endswith(".bz2"):
        pages = (page for page in wiki_dump.read_dump(path) if not page.redirect)
        words = " ".join(p.text for page in pages for p in wikitext.parse(page.wikitext, page.language)).split()
    else:
        words = path.read_text(encoding="utf-8").split()
    draw, texts = random.Random(0), []
    for k in range(0, min(len(words) - 39, 40 * count), 40):
        text, borders = " ".join(words[k : k + 40]), [0]
        for word in words[k : k + 40]:
            borders.append(borders[-1] + len(word) + 1)
        cuts = set()
        for _ in range(50):
            first = draw.randrange(40)
            last = min(first + draw.randint(1, 6), 40)
            cuts |= {max(borders[first] - 1, 0), borders[last] - 1}
        texts.append((text, sorted(cuts)))
    return texts


def segments(text: str, cuts: list[int]) -> list[str]:
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, None])]


def calls(ours) -> tuple:
    return (
        lambda text: ours.encode_segments([text])[0].tolist(),
        lambda text, cuts: ours.encode_segments(segments(text, cuts))[0].tolist(),
    )


def competitors(folder: Path) -> dict:
    """Name -> (ids of a text, ids of a text with cuts)."""
    ours = tokenizer_bpe.load(folder)
    found = {"luke_mini": calls(ours)}
    try:
        import tokenizers
    except ImportError as error:
        print(f"without tokenizers: {error}")
    else:
        vocab = {piece: k for k, piece in enumerate(ours.pieces(range(len(ours))))}
        rust = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, ours.merges))
        rust.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        found["tokenizers (Rust)"] = (
            lambda text: rust.encode(text).ids,
            lambda text, cuts: [k for part in segments(text, cuts) for k in rust.encode(part).ids],
        )
    try:
        import transformers
    except ImportError as error:
        print(f"without transformers: {error}")
    else:
        saved = Path(tempfile.mkdtemp())
        ours.save(saved)
        (saved / "entity_vocab.json").write_text(json.dumps({"[MASK]": 0, "[UNK]": 1, "[PAD]": 2, "[MASK2]": 3}))
        luke = transformers.LukeTokenizer.from_pretrained(saved)
        found[f"LukeTokenizer, transformers {transformers.__version__}"] = (
            lambda text: luke.convert_tokens_to_ids(luke.tokenize(text)),
            lambda text, cuts: luke.convert_tokens_to_ids([p for s in segments(text, cuts) for p in luke.tokenize(s)]),
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--texts", type=int, default=2000, help="default 2000")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    texts = make_texts(options.text, options.texts)
    found = competitors(options.folder)
    tasks = {"whole texts": lambda run, text, _: run[0](text), "50 mentions": lambda run, *cut: run[1](*cut)}
    for task, call in tasks.items():
        times, tokens = {name: [] for name in [*found, "luke_mini, cold"]}, {}
        for _ in range(options.rounds):
            cold = {"luke_mini, cold": calls(tokenizer_bpe.load(options.folder))}
            for name, run in (found | cold).items():
                start = time.process_time()
                tokens[name] = sum(len(call(run, text, cuts)) for text, cuts in texts)
                times[name].append(time.process_time() - start)
        print(f"{task}: {len(texts)} texts, {tokens['luke_mini']} tokens, median of {options.rounds} rounds")
        warm = statistics.median(times["luke_mini"][1:] or times["luke_mini"])
        for name, seconds in sorted(times.items(), key=lambda item: statistics.median(item[1])):
            median = warm if name == "luke_mini" else statistics.median(seconds)
            speed = f"{len(texts) / median:9,.0f} texts/s {tokens[name] / median / 1e3:8,.0f} thousand tokens/s"
            print(f"  {name:36s} {speed} {median / warm:7.1f} x our time (warm)")
            assert tokens[name] == tokens["luke_mini"], f"{name} has {tokens[name]} tokens"


if __name__ == "__main__":
    main()
