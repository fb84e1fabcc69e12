"""What prepare_wiki.py takes: memory, by stage and process; processor time, when it is killed and goes on.

    python tests/bench/bench_preparing.py memory DUMP --gigabytes 0.3 1 5 --out FOLDER [--thin] [options of the script]
    python tests/bench/bench_preparing.py kills DUMP --kills 20 --out FOLDER [options of the script]
    python tests/bench/bench_preparing.py workers DUMP --out FOLDER [options of the script]

memory: a large dump has the pages of DUMP again and again; in each copy they have titles of their own, links among them
lead to the same copy, and so many of the other linked titles are new, as redirects to its pages, that a gigabyte has
about as many titles as one of the English Wikipedia (190,000). It has a bzip2 stream for each copy. One that is there
is taken.

--thin: the same dump without what the main process does not keep, a thirteenth of the XML, not packed. The same as in
the whole one: the pages, their titles, the redirects, and each link to a title that a copy has for itself. Not so:
each of these links is a sentence, named by the title, and there is no other text; links that lead to the same titles in
all copies, and so their names and counts, are missing. So a thin run shows what grows with titles and their counts. It
does not show the time, nor the examples of a shard, at most 2^26 words, which the main process holds before it writes
them: 2 bytes a word, or 4 with more than 65,536 in the vocabulary, and 8 an entity.

Resident memory is the highest that /proc says, every 0.2 s. Of a worker, forked from the main process, it includes
what both share; "own" is what no other process has.

kills: SIGKILL when a random share of an undisturbed run's processor time is spent, by all processes together, then the
same command again; what was done twice is the sum of both less the undisturbed run's. All have to make the same bytes.

workers: 1 worker, 4 workers, and two parts merged have to make the same bytes.
"""

import argparse
import bz2
import ctypes
import json
import os
import random
import re
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
import zlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from project import ROOT

NEW = 7  # in 100 linked titles, of each copy
SLOT = b"\0"  # where a copy has its number
LINK = re.compile(rb"\[\[([^\[\]|#:<&\n]+)(?=[|\]])")
TITLE = re.compile(rb'(?<=<title>)[^<]+|(?<=<redirect title=")[^"]+')
REDIRECT = b'<page><title>%s</title><ns>0</ns><id>1</id><redirect title="%s" /><revision><id>1</id>' \
           b"<text>#REDIRECT [[%s]]</text></revision></page>\n"  # fmt: skip


def template(xml: bytes, thin: bool) -> tuple[bytes, bytes]:
    """The head of a dump, and its pages with a slot behind every title that a copy has for itself."""
    head, pages = xml.split(b"<page>", 1)
    pages = b"<page>" + pages.rpartition(b"</mediawiki>")[0]
    own = set(TITLE.findall(pages))
    new = {title for title in LINK.findall(pages) if zlib.crc32(title) % 100 < NEW} - own
    pages = TITLE.sub(rb"\g<0>" + SLOT, pages)
    pages = LINK.sub(lambda link: link[0] + SLOT * (link[1] in own or link[1] in new), pages)
    if thin:
        def links_alone(text: re.Match) -> bytes:
            links = re.findall(rb"\[\[([^\[\]|]*\0)", text[2])
            return text[1] + b" ".join(b"A page is called [[%s]]." % link for link in links)

        pages = re.sub(rb"(<text[^>]*>)(?!#)([^<]*)", links_alone, pages)
    targets = sorted(own)
    more = (REDIRECT % (title + SLOT, *2 * [targets[k % len(targets)] + SLOT]) for k, title in enumerate(sorted(new)))
    return head, pages + b"".join(more)


def write_dump(small: Path, size: float, path: Path, thin: bool) -> None:
    """size: of the XML, in bytes, if it is not thin."""
    xml = bz2.decompress(small.read_bytes())
    copies, pack = max(1, round(size / len(template(xml, False)[1]))), bytes if thin else bz2.compress
    head, pages = template(xml, thin)
    with open(path, "wb") as file, ThreadPoolExecutor(2) as pool:
        file.write(pack(head))
        for first in range(0, copies, 8):
            numbers = range(first, min(first + 8, copies))
            file.writelines(pool.map(lambda k: pack(pages.replace(SLOT, b" %d" % k if k else b"")), numbers))
        file.write(pack(b"</mediawiki>\n"))


def memory(process: int) -> tuple[int, int] | None:
    """Most resident bytes until now, and those that no other process has."""
    try:
        text = "".join(Path(f"/proc/{process}/{name}").read_text() for name in ("status", "smaps_rollup"))
    except OSError:
        return None
    found = {name: int(value) * 1024 for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    return (found["VmHWM"], found["Private_Clean"] + found["Private_Dirty"]) if "VmHWM" in found else None


def children(process: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))
    except OSError:
        return []


def stage(out: Path) -> str:
    """The one that was begun last."""
    if any(out.glob("shard-*")):
        return "shards"
    begun = sorted(out.glob("work/*/stage.json"), key=lambda path: path.stat().st_mtime_ns)
    return begun[-1].parent.name.split("-")[0] if begun else "start"


def size(folder: Path) -> int:
    """Bytes of all files."""
    found = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            found += path.lstat().st_size
    return found


def watch(command: list[str], out: Path) -> dict[str, list[float]]:
    """stage -> processor seconds of all, peaks of the main process, of the largest worker (resident, own), of the disk,
    in bytes."""
    found, last = defaultdict(lambda: [0.0, 0, 0, 0, 0]), 0.0
    process = subprocess.Popen(command, cwd=ROOT)
    while True:
        rows, now = found[stage(out)], spent_by(process.pid)
        rows[0] += max(0.0, now - last)
        last = max(now, last)
        main, *workers = map(memory, [process.pid, *children(process.pid)])
        rows[1] = max(rows[1], main[0] if main else 0)
        for worker in filter(None, workers):
            rows[2], rows[3] = max(rows[2], worker[0]), max(rows[3], worker[1])
        rows[4] = max(rows[4], size(out))
        if process.poll() is not None:
            break
        time.sleep(0.2)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit status {process.returncode}")
    return found


def measure_memory(dump: Path, sizes: list[float], thin: bool, folder: Path, others: list[str]) -> None:
    for size in sizes:
        out, large = folder / f"{size:g}", folder / (f"{size:g}.thin.xml" if thin else f"{size:g}.xml.bz2")
        if not large.exists():
            write_dump(dump, size * 1e9, large.with_suffix(".part"), thin)
            large.with_suffix(".part").rename(large)
        found = watch(command(large, out, others), out)
        made = json.loads((out / "manifest.json").read_text())
        print(f"{size:g} GB of XML, {large.stat().st_size / 1e9:.2f} GB {'thin' if thin else 'packed'}, "
              f"{made['pages']:,} articles, {made['redirects']:,} redirects, {made['links']:,} links; memory in MB:")
        for name, (seconds, *peaks) in found.items():
            main, worker, own, disk = (peak / 1e6 for peak in peaks)
            print(f"  {name:12s}{seconds:7.0f} s of processor time   main{main:6.0f}   a worker{worker:6.0f}, own"
                  f"{own:6.0f}   disk{disk:7.0f}", flush=True)  # fmt: skip


# --- Kills ------------------------------------------------------------------------------------------------------------


def command(dump: Path, out: Path, others: list[str]) -> list[str]:
    return [sys.executable, "prepare_wiki.py", "--dump", str(dump.resolve()), "--out", str(out.resolve()), *others]


def spent() -> float:
    """Processor seconds of all children that have ended, and theirs."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def spent_by(process: int) -> float:
    """Of one that runs and of its children, ended or not."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    ended = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return ended + sum(map(spent_by, children(process)))


def run(arguments: list[str], limit: float = float("inf")) -> tuple[float, str]:
    """Processor seconds until it ended or, at the limit, was killed; and at which stage that was."""
    before, process, at = spent(), subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL), "end"
    while process.poll() is None:
        if spent_by(process.pid) >= limit:
            at = stage(Path(arguments[5]))
            process.kill()
        time.sleep(0.01)
    if process.returncode not in (0, -signal.SIGKILL):
        sys.exit(f"{' '.join(arguments)}: exit status {process.returncode}")
    while children(os.getpid()):  # its workers are ours now
        os.wait()
    return spent() - before, at


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def measure_kills(dump: Path, kills: int, folder: Path, others: list[str]) -> None:
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: workers of a killed process become our children
    whole, out = folder / "undisturbed", folder / "killed"
    shutil.rmtree(whole, ignore_errors=True)
    usual = statistics.mean(run(command(dump, whole, others))[0] for _ in range(2))
    start, _ = run([sys.executable, "-c", "import prepare_wiki"])
    print(f"undisturbed {usual:.2f} s of processor time, {start:.2f} s of them to start")
    for number in range(kills):
        shutil.rmtree(out, ignore_errors=True)
        first, at = run(command(dump, out, others), random.Random(number).uniform(0, usual))
        if at == "end":
            print(f"ended after {first:5.2f} s, before it was killed", flush=True)
            continue
        rest, _ = run(command(dump, out, others))
        same = contents(out) == contents(whole)
        print(f"killed after {first:5.2f} s ({at}), the rest {rest:5.2f} s: {rest / max(usual - first, 0.01):.2f} x "
              f"what was left, twice {first + rest - usual:5.2f} s; "
              f"{'same' if same else 'OTHER'} bytes", flush=True)  # fmt: skip


def compare_workers(dump: Path, folder: Path, others: list[str]) -> None:
    parts = [[*part, "--workers", "2"] for part in (["--part", "1/2"], ["--part", "2/2"], ["--merge"])]
    ways = {"1 worker": [["--workers", "1"]], "4 workers": [["--workers", "4"]], "2 parts, merged": 2 * parts}
    made = []
    for number, (way, runs) in enumerate(ways.items()):
        out = folder / f"way-{number}"
        shutil.rmtree(out, ignore_errors=True)
        seconds = sum(run(command(dump, out, [*others, *more]))[0] for more in runs)
        made.append(contents(out))
        print(f"{way}: {len(made[-1])} files, {sum(map(len, made[-1].values())):,} bytes, {seconds:.1f} s of processor"
              " time" + (", the same" if made[-1] == made[0] else ", OTHERS") * (number > 0), flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "kills", "workers"])
    parser.add_argument("dump", type=Path)
    parser.add_argument("--gigabytes", type=float, nargs="+", default=[0.3])
    parser.add_argument("--thin", action="store_true")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    options, others = parser.parse_known_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what == "memory":
        measure_memory(options.dump, options.gigabytes, options.thin, options.out, others)
    elif options.what == "workers":
        compare_workers(options.dump, options.out, others)
    else:
        measure_kills(options.dump, options.kills, options.out, others)


if __name__ == "__main__":
    main()
