"""What `prepare_wiki.py --dry-run` says: what is there, and how long, how much disk and memory the rest takes.

It is reckoned from a sample that was prepared. Times are processor times, so that other work on the machine does not
count: those of the main process, and those of its workers, which they share. They grow as the bytes of the sources do,
the tokenizer's as its text, which is bounded. So does the disk, but for the vocabularies, and that is too much where
titles without a page count (--keep-red-links): most of them come again. Of memory, what the main process keeps of
titles grows, and before or after that what the tokenizer is trained on, or the examples of a shard that is not full.
"""

import os
import re
import resource
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from luke_mini import files, wikidata
from luke_mini.corpus import Corpus

READ = 1 << 25  # bytes of Wikidata that are read for its time
SHARD = 1 << 28  # bytes of examples in the main process before a shard is written: 2^26 words in 2 or 4 bytes, entities
# Bytes in the main process of an article or a redirect, with its share of links, names and entities: 770, 710 and 680
# were measured with 78,000, 262,000 and 1,306,000 of them.
TITLE = 700


class Sample:
    """What some pieces took, stage by stage."""

    def __init__(self, folder: Path):
        """folder: that of the stages; what is made goes into the one above."""
        self.folder, self.seconds, self._before = folder, {}, self._spent()

    def done(self, stage: str) -> None:
        """Keeps the time since the stage before: of this process, of its workers; and the memory of both, in bytes."""
        now = self._spent()
        self.seconds[stage] = now[0] - self._before[0], now[1] - self._before[1]
        self._before, self.bytes = now, (size(self.folder), size(self.folder.parent))
        self.shards = sum(path.stat().st_size for path in self.folder.parent.rglob("shard-*.bin"))
        peaks = [files.peak_memory(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        if stage == "tokenizer":
            self.training = peaks[0] - self.memory[0]
        self.memory = peaks

    def _spent(self) -> tuple[float, float]:
        now = os.times()
        return now.user + now.system, now.children_user + now.children_system


def forecast(
    out: Path, corpora: Sequence[Corpus], sample: Sample, sampled: Sequence[Corpus], there: dict[str, tuple[int, int]],
    most_text: int, items: float = 0,
) -> dict[str, str]:  # fmt: skip
    """Names and values.

    there: stage -> its parts, and how many it will have. most_text: characters that the tokenizer learns from. items:
    seconds to read Wikidata.
    """
    total, taken = (sum(piece.size for pages in part for piece in pages.pieces) for part in (corpora, sampled))
    made = [part.made for pages in sampled for part in pages.parts]
    articles, redirects, text = (sum(part[name] for part in made) for name in ("pages", "redirects", "characters"))
    rules, workers, more = corpora[0].rules, corpora[0].workers, total / taken
    if rules.max_pages:
        more = min(more, rules.max_pages * len(corpora) / articles)
    growth = dict.fromkeys(sample.seconds, more) | {"tokenizer": min(more * text, most_text) / min(text, most_text)}
    left = {stage: growth[stage] * (1 - parts / whole) for stage, (parts, whole) in there.items()}
    seconds = {stage: (growth | left)[stage] * (own + shared / workers)
               for stage, (own, shared) in sample.seconds.items()}  # fmt: skip
    seconds["vocabulary"] += items * (not there["vocabulary"][0])
    waiting, kept = more * sample.bytes[0], more * (sample.bytes[1] - sample.bytes[0])
    free = shutil.disk_usage(next(place for place in [out, *out.resolve().parents] if place.exists())).free
    main, worker = sample.memory
    largest = max(growth["tokenizer"] * sample.training, min(more * sample.shards, SHARD))
    main += TITLE * (more - 1) * (articles + redirects) + largest - sample.training
    return {
        "sources": f"{amount(total)} in {sum(len(pages.pieces) for pages in corpora):,} pieces",
        "there": ", ".join(f"{stage} {parts:,} of {whole:,}" for stage, (parts, whole) in there.items()),
        "sample": f"{articles:,} articles and {redirects:,} redirects, {amount(taken)}, in "
                  f"{files.duration(sum(map(sum, sample.seconds.values())))}",
        "time": f"about {files.duration(sum(seconds.values()))} with {workers} processes: "
                + ", ".join(f"{stage} {files.duration(needed)}" for stage, needed in seconds.items()),
        "disk": f"at most {amount(kept)} in {out}, and until all is done {amount(waiting)} more; {amount(free)} are free"
                + ": too little" * (kept + waiting > free),
        "memory": f"about {amount(main)} in the main process, in each worker {amount(worker)}, and what it "
                  "shares with the main process",
    }  # fmt: skip


def reading(path: Path, languages: Sequence[str]) -> float:
    """Seconds that all of Wikidata takes, from its beginning."""
    read, start = [], time.monotonic()
    for _ in wikidata.read_items(path, languages, read.append):
        if len(read) % 256 == 0 and sum(read) > READ:
            break
    return (time.monotonic() - start) * path.stat().st_size / sum(read)


def amount(size: float) -> str:
    """1234567 -> 1 MB, 5000000000 -> 5.0 GB"""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def size(folder: Path) -> int:
    """Bytes of its files that grow with the sources."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in found if not re.search("tokenizer|vocab", str(path.relative_to(folder))))
