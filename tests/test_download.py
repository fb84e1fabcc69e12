"""Downloads from a server of our own on loopback, laid out like Wikimedia's, with the faults that one meets."""

import bz2
import hashlib
import http.server
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import prepare_wiki
from luke_mini import download, wiki_dump

PAGE = "<page><title>{0}</title><ns>0</ns><revision><text>[[Ada]] met {0}.</text></revision></page>"
DUMP = '<mediawiki xml:lang="sw">{}</mediawiki>'


def dump_of(*titles: str, size: int = 0) -> bytes:
    """A dump; size: of its file at least, in bytes, by a comment that does not compress."""
    comment = f"<!--{random.Random(0).randbytes(size).hex()}-->"
    return bz2.compress(DUMP.format("".join(map(PAGE.format, titles)) + comment).encode())


SINGLE = "swwiki-20261101-pages-articles.xml.bz2"


class Server(http.server.ThreadingHTTPServer):
    """files: path -> bytes. fault(path, count, handler) may answer itself and say so."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.agents, self.open, self.most_open = {}, [], set(), 0, 0
        self.fault, self.ranges, self.guard = None, True, threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def dump(self, wiki: str, date: str, jobs: dict[str, tuple[str, dict[str, bytes]]]):
        """jobs: name -> (status, files)."""
        listed = {}
        for job, (status, contents) in jobs.items():
            sums = {name: {"size": len(data), "url": f"/{wiki}/{date}/{name}", "sha1": hashlib.sha1(data).hexdigest()}
                    for name, data in contents.items()}  # fmt: skip
            listed[job] = {"status": status, "files": sums}
            self.files |= {f"/{wiki}/{date}/{name}": data for name, data in contents.items()}
        self.files[f"/{wiki}/{date}/dumpstatus.json"] = json.dumps({"jobs": listed, "version": "0.8"}).encode()
        dates = sorted({path.split("/")[2] for path in self.files if path.startswith(f"/{wiki}/2")})
        self.files[f"/{wiki}/"] = "".join(f'<a href="{date}/">{date}/</a>' for date in [*dates, "latest"]).encode()

    def bodies(self) -> list[tuple[str, int]]:
        """(name of the file, first byte) of each request for a dump's file."""
        return [(path.rpartition("/")[2], start) for path, start in self.requests if path.endswith("bz2")]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, start = self.server, 0
        if server.ranges and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
        with server.guard:
            server.requests.append((self.path, start))
            server.agents.add(self.headers["User-Agent"])
            server.open += 1
            server.most_open = max(server.most_open, server.open)
        try:
            self.answer(start)
        finally:
            with server.guard:
                server.open -= 1
            self.close_connection = True

    def answer(self, start: int):
        data, count = self.server.files.get(self.path), sum(path == self.path for path, _ in self.server.requests)
        if data is None:
            return self.send_error(404)
        if self.server.fault and self.path.endswith("bz2") and (cut := self.server.fault(self, count)) is not None:
            if cut < 0:
                return self.send_error(-cut)
        else:
            cut = len(data)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        for position in range(start, cut, 1 << 14):
            self.wfile.write(data[position : min(position + (1 << 14), cut)])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.01)
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def single(server):
    """A wiki with one dump in one file."""
    server.dump("swwiki", "20261101", {"articlesdump": ("done", {SINGLE: dump_of("Bo", "Oslo", size=100_000)})})
    return server


def titles(paths: list[Path]) -> list[str]:
    return [page.title for path in paths for page in wiki_dump.read_dump(path)]


def test_the_newest_complete_dump_in_parts_is_read_in_order(server, tmp_path):
    names = [f"enwiki-20261101-pages-articles-multistream{n}.xml-p{first}p{first + 9}.bz2"
             for n, first in [(1, 1), (2, 10), (9, 90), (10, 100), (10, 200)]]  # fmt: skip
    parts = {name: dump_of(f"Page {number}") for number, name in enumerate(names)}
    index = {name.replace("multistream", "multistream-index").replace("xml", "txt"): b"0:1:Page" for name in names}
    jobs = {"articlesdump": ("done", {"enwiki-20261101-pages-articles.xml.bz2": dump_of("X")}),
            "articlesmultistreamdump": ("done", dict(reversed((parts | index).items())))}  # fmt: skip
    server.dump("enwiki", "20261001", {"articlesdump": ("done", {"enwiki-20261001-pages-articles.xml.bz2": b"old"})})
    server.dump("enwiki", "20261101", jobs)
    server.dump("enwiki", "20261201", {"articlesdump": ("in-progress", {"a.xml.bz2": b"half"})})
    paths = download.fetch("en", tmp_path, None, server.url + "/")
    assert [path.name for path in paths] == names and titles(paths) == [f"Page {number}" for number in range(5)]
    assert [path.parent for path in paths] == [tmp_path / "enwiki-20261101"] * 5
    assert sorted(tmp_path.iterdir()) == [tmp_path / "enwiki-20261101"]
    assert server.most_open <= 2 and len(server.bodies()) == 5
    assert all("luke-mini" in agent for agent in server.agents)
    assert download.fetch("en", tmp_path, None, server.url) == paths and len(server.bodies()) == 5  # not again
    assert download.fetch("en", tmp_path, "20261101", "http://127.0.0.1:9") == paths  # nor is the server asked


def test_a_date_and_a_language_with_a_hyphen(server, tmp_path):
    for date in ("20261001", "20261101"):
        name = f"zh_yuewiki-{date}-pages-articles.xml.bz2"
        server.dump("zh_yuewiki", date, {"articlesdump": ("done", {name: dump_of(date)})})
    assert titles(download.fetch("yue", tmp_path, "20261001", server.url)) == ["20261001"]
    assert titles(download.find_downloaded("zh-yue", tmp_path)) == ["20261001"]


@pytest.mark.parametrize(
    ("there", "expected"),  # without "swwiki-" and ".bz2"; which are found
    [
        (["20260101-pages-articles.xml", "20250101-pages-articles.xml"], [0]),
        (["latest-pages-articles.xml", "20250101-pages-articles.xml"], [0]),
        (["1-pages-articles-multistream.xml", "1-pages-articles-multistream-index.txt"], [0]),
        (["1-pages-articles.xml", "1-pages-articles-multistream.xml"], [1]),
        ([f"1-pages-articles{k}.xml-p{k}p{k}" for k in (2, 10, 1)], [2, 0, 1]),
        (["1-pages-articles1.xml-p1p9", "1-pages-articles.xml"], [1]),
        # Both variants: each part once, whichever there is.
        ([f"1-pages-articles{v}{k}.xml-p{k}p{k}" for k in (2, 1) for v in ("", "-multistream")], [3, 1]),
        ([f"1-pages-articles{part}" for part in (
            "1.xml-p1p4", "-multistream2.xml-p5p9", "-multistream1.xml-p1p4", "2.xml-p10p19")], [2, 1, 3]),
    ],
)
def test_finds_the_newest_dump(tmp_path, there, expected):
    for name in there:
        (tmp_path / f"swwiki-{name}.bz2").touch()
    (tmp_path / "simplewiki-2-pages-articles.xml.bz2").touch()
    assert [path.name for path in download.find("sw", tmp_path)] == [f"swwiki-{there[k]}.bz2" for k in expected]


def test_no_dump(tmp_path):
    assert download.find("sw", tmp_path) == []


def once(number: int, answer):
    """The first `number` requests get this answer: bytes before the connection ends, or a status (negative)."""
    return lambda _, count: answer if count <= number else None


@pytest.mark.parametrize("fault, starts", [
    (once(1, 40_000), [0, 40_000]), (once(1, -503), [0, 0]), (once(1, -429), [0, 0]), (once(1, 0), [0, 0]),
    (lambda _, count: 20_000 * count if count < 4 else None, [0, 20_000, 40_000, 60_000]),
])  # fmt: skip
def test_a_broken_connection_is_opened_again_where_it_broke(single, tmp_path, fault, starts):
    single.fault = fault
    (path,) = download.fetch("sw", tmp_path, None, single.url)
    assert path.read_bytes() == single.files[f"/swwiki/20261101/{SINGLE}"]
    assert [start for _, start in single.bodies()] == starts


def test_a_server_without_ranges_sends_all_of_it_again(single, tmp_path):
    single.fault, single.ranges = once(1, 40_000), False
    (path,) = download.fetch("sw", tmp_path, None, single.url)
    assert path.read_bytes() == single.files[f"/swwiki/20261101/{SINGLE}"]


def test_a_slow_answer_counts_as_a_broken_connection(single, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    single.fault = lambda _, count: time.sleep(0.6) if count == 1 else None
    assert titles(download.fetch("sw", tmp_path, None, single.url)) == ["Bo", "Oslo"]
    assert len(single.bodies()) == 2


def test_a_server_that_stays_away_is_named_and_what_is_there_stays(single, tmp_path):
    single.fault = lambda _, count: 30_000 if count == 1 else -500
    with pytest.raises(OSError, match=rf"{SINGLE}: the server answers 500 .*; what is there stays"):
        download.fetch("sw", tmp_path, None, single.url)
    assert len(single.bodies()) == 1 + download.TRIES
    single.fault = None
    download.fetch("sw", tmp_path, None, single.url)
    assert single.bodies()[-1] == (SINGLE, 30_000)


def test_wrong_bytes_are_removed(single, tmp_path):
    path = f"/swwiki/20261101/{SINGLE}"
    right = single.files[path]
    single.files[path] = right[:-1] + b"x"
    with pytest.raises(ValueError, match=rf"{SINGLE}: .* bytes with SHA-1 .*, expected .*; the file was removed"):
        download.fetch("sw", tmp_path, None, single.url)
    single.files[path] = right
    (whole,) = download.fetch("sw", tmp_path, None, single.url)
    assert whole.read_bytes() == right and single.bodies()[-1] == (SINGLE, 0)


@pytest.mark.parametrize("language, date, message", [
    ("xx", None, "/xxwiki/: no such wiki, expected a language of Wikipedia"),
    ("sw", "20250101", "/swwiki/: no complete dump of the articles of 20250101, dates are 20261101"),
    ("fi", None, "/fiwiki/: no complete dump of the articles, dates are 20261101"),
])  # fmt: skip
def test_what_is_not_there_is_named(single, tmp_path, language, date, message):
    single.dump("fiwiki", "20261101", {"articlesdump": ("waiting", {})})
    with pytest.raises(ValueError, match=message):
        download.fetch(language, tmp_path, date, single.url)
    assert not list(tmp_path.iterdir())


def test_a_part_that_is_gone(single, tmp_path):
    del single.files[f"/swwiki/20261101/{SINGLE}"]
    with pytest.raises(ValueError, match=f"{SINGLE}: the server answers 404"):
        download.fetch("sw", tmp_path, None, single.url)
    assert len(single.bodies()) == 1


@pytest.mark.parametrize("name", ["../evil.bz2", ".hidden", "a/b.bz2"])
def test_a_name_that_leaves_the_folder(server, tmp_path, name):
    server.dump("swwiki", "20261101", {"articlesdump": ("done", {name: b"x"})})
    with pytest.raises(ValueError, match="expected a plain name"):
        download.fetch("sw", tmp_path, None, server.url)


def test_a_full_disk_is_seen_before_the_download(single, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: SimpleNamespace(free=50_000))
    with pytest.raises(ValueError, match="0.0 GB are free on this disk"):
        download.fetch("sw", tmp_path, None, single.url)
    assert not single.bodies()


def test_no_network_says_how_to_go_on(tmp_path):
    with pytest.raises(OSError, match="give its files to --dump"):
        download.fetch("sw", tmp_path, None, "http://127.0.0.1:9")


def test_a_killed_download_goes_on_to_prepared_data(server, tmp_path, monkeypatch):
    """Killed in the middle of the second of three parts: the first is not fetched again, the second from its middle."""
    names = [f"swwiki-20261101-pages-articles{n}.xml-p{n}p{n}.bz2" for n in (1, 2, 3)]
    parts = {name: dump_of(*(f"Town {n} {k}" for k in range(9)), size=300_000) for n, name in enumerate(names)}
    server.dump("swwiki", "20261101", {"articlesdump": ("done", parts)})
    halfway, killed = threading.Event(), threading.Event()

    def stop(handler, count):
        if handler.path.endswith(names[1]) and count == 1:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(parts[names[1]])))
            handler.end_headers()
            handler.wfile.write(parts[names[1]][:100_000])
            handler.wfile.flush()
            halfway.set()
            killed.wait(60)
            return 0
        return 0 if handler.path.endswith(names[2]) and not halfway.wait(60) else None

    server.fault = stop
    monkeypatch.chdir(tmp_path)
    given = f"--wiki sw --mirror {server.url} --keep-red-links --vocab-size 60 --workers 1 --out".split()
    code = "from luke_mini import download; download.CHUNK = 1 << 14; import prepare_wiki; prepare_wiki.main()"
    finder = {"PYTHONPATH": str(Path(__file__).parent.parent)}
    process = subprocess.Popen([sys.executable, "-c", code, *given, "out"], env=os.environ | finder)
    assert halfway.wait(30)
    waiting = Path("dumps/swwiki-20261101.part")
    for _ in range(600):
        if (waiting / names[1]).exists() and (waiting / names[1]).stat().st_size >= 98_304:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed.set()
    held, asked = (waiting / names[1]).stat().st_size, len(server.bodies())
    server.fault = None
    prepare_wiki.main([*given, "out"])
    paths = [Path("dumps/swwiki-20261101", name) for name in names]
    assert 0 < held < len(parts[names[1]]) and [path.read_bytes() for path in paths] == list(parts.values())
    later = dict(server.bodies()[asked:])
    assert names[0] not in later and later[names[1]] == held and not waiting.exists()
    made = json.loads(Path("out/manifest.json").read_text())
    assert made["pages"] == made["links"] == 27 and made["sources"] == names and made["examples"] == 27


def test_wiki_is_prepared_from_what_was_downloaded(server, tmp_path, monkeypatch, capsys):
    """The whole way: `--wiki` fetches into dumps/, prepares; again, without a server, from what is there."""
    text = "".join(PAGE.format(f"Town {i}").replace(" met ", " met long ago, in the small and old town of ") for i in range(60))
    name = "swwiki-20261101-pages-articles-multistream.xml.bz2"
    dump = bz2.compress(DUMP.format(text).encode())
    server.dump("swwiki", "20261101", {"articlesmultistreamdump": ("done", {name: dump})})
    monkeypatch.chdir(tmp_path)
    rest = "--wiki sw --keep-red-links --vocab-size 60 --workers 1 --mirror"
    with pytest.raises(SystemExit):
        prepare_wiki.main([*rest.split(), server.url, "--dry-run"])
    assert "download    sw of 20261101, 0 MB in 1 files" in capsys.readouterr().out and not list(tmp_path.iterdir())
    prepare_wiki.main([*rest.split(), server.url, "--out", "first"])
    prepare_wiki.main([*rest.split(), "http://127.0.0.1:9", "--out", "second"])
    assert (tmp_path / f"dumps/swwiki-20261101/{name}").read_bytes() == dump
    first, second = (json.loads(Path(out, "manifest.json").read_text()) for out in ("first", "second"))
    assert first["pages"] == 60 and first["sources"] == [name] and first == second and len(server.bodies()) == 1
