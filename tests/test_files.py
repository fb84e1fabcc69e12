"""Files are whole or absent, and written by one process; JSON records: values as they stand, and one line naming file,
place and field for everything else.

pytest tests/test_files.py
"""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from luke_mini import files
from luke_mini.files import Record, parse_record, read_json, read_json_lines, read_records, run


def write(tmp_path, text, name="data.jsonl"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


# ---- writing


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_each_writer_has_a_name_of_its_own(tmp_path, kind):
    """A second writer of the same name begins and ends in the middle of the first; the last to end remains, whole."""
    path = tmp_path / "made"
    if kind == "file":
        with files.write_file(path) as first:
            first.write("1")
            with files.write_file(path) as second:
                second.write("2")
            assert path.read_text() == "2"
            first.write("1")
        assert path.read_text() == "11"
    else:
        with files.write_folder(path) as first:
            (first / "a").write_text("1")
            with files.write_folder(path) as second:
                (second / "b").write_text("2")
            assert [part.name for part in path.iterdir()] == ["b"]
            (first / "c").write_text("1")
        assert sorted(part.name for part in path.iterdir()) == ["a", "c"]
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, signal, sys
from luke_mini import files
with files.{}(sys.argv[1]) as made:
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("write", [files.write_file, files.write_folder], ids=lambda write: write.__name__)
def test_what_a_killed_writer_left_goes_away_and_nothing_else(tmp_path, write):
    path, own = tmp_path / "made", [tmp_path / ".made.old.tmp", tmp_path / ".other.0123abcd.tmp"]
    for note in own:
        note.write_text("the user's")
    killed = subprocess.run([sys.executable, "-c", KILLED.format(write.__name__), path], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 3 and not path.exists()
    with write(path):
        pass
    assert sorted(tmp_path.iterdir()) == sorted([path, *own])


DIES_AT = """
import os, signal, sys
from pathlib import Path
from luke_mini import files
def die(event, _):
    if event == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
files.remove_folder(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("moment", ["os.rename", "os.remove", "os.rmdir", "none"])
def test_a_folder_is_whole_or_gone_whenever_its_remover_dies(tmp_path, moment):
    folder = tmp_path / "state"
    for name in ("a/b", "c"):
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(name)
    end = subprocess.run([sys.executable, "-c", DIES_AT, folder, moment], cwd=ROOT).returncode
    assert (end == 0) == (moment == "none") and folder.exists() == (moment == "os.rename")
    assert not folder.exists() or [(folder / name).read_text() for name in ("a/b", "c")] == ["a/b", "c"]
    files.remove_folder(folder)
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_what_was_there(tmp_path):
    for path, write in ((tmp_path / "file", files.write_file), (tmp_path / "folder", files.write_folder)):
        with write(path):
            pass
        with pytest.raises(OSError, match=f"No space left on device: '{path}'"), write(path):
            raise OSError(28, "No space left on device")
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file", tmp_path / "folder"]


def test_files_that_belong_together_are_replaced_together(tmp_path):
    """An error leaves all of the older ones, and names OUT; the last one is there only with those it belongs to."""

    def write(folder, text):
        for name in ("results.json", "a.txt", "z.txt"):
            with files.write_file(folder / name) as file:
                file.write(text)

    write(tmp_path, "old")
    (tmp_path / "a note").write_text("the user's")
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/b.txt'"):
        with files.write_together(tmp_path, "results.json") as new:
            write(new, "new")
            raise OSError(28, "No space left on device", f"{new}/b.txt")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"results.json": "old", "a.txt": "old", "z.txt": "old", "a note": "the user's"}
    with files.write_together(tmp_path, "results.json") as new:
        write(new, "new")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"results.json": "new", "a.txt": "new", "z.txt": "new", "a note": "the user's"}


TOGETHER = """
import os, signal, sys
from pathlib import Path
from luke_mini import files
left = int(sys.argv[2])
def die(event, _):
    global left
    if event in ("os.rename", "os.remove"):
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
with files.write_together(sys.argv[1], "results.json") as new:
    for name in ("results.json", "a.txt", "z.txt"):
        (new / name).write_text("new")
    sys.addaudithook(die)
"""


@pytest.mark.parametrize("moment", [1, 2, 3, 4])
def test_a_killed_replacement_leaves_no_mixture(tmp_path, moment):
    names = ["results.json", "a.txt", "z.txt"]
    for name in names:
        (tmp_path / name).write_text("old")
    end = subprocess.run([sys.executable, "-c", TOGETHER, tmp_path, str(moment)], cwd=ROOT).returncode
    assert end == -signal.SIGKILL
    assert (tmp_path / "results.json").exists() == (moment == 1)
    assert moment > 1 or {(tmp_path / name).read_text() for name in names} == {"old"}
    with files.write_together(tmp_path, "results.json") as new:
        (new / "a.txt").write_text("again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "z.txt"]


HOLDS = """
import sys, time
from luke_mini import files
with files.one_writer(sys.argv[1]):
    print(flush=True)
    time.sleep(60)
"""


def test_one_writer_at_a_time_and_none_after_its_death(tmp_path):
    out = tmp_path / "runs" / "out"
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, out], stdout=-1, cwd=ROOT)
    holder.stdout.readline()
    with pytest.raises(ValueError, match=f"^{out}: process {holder.pid} on .+ is writing there; wait for it"):
        with files.one_writer(out):
            pass
    holder.kill()
    for _ in range(2):
        with files.one_writer(out):
            assert f"process {os.getpid()} on" in (out / ".lock").read_text()
    assert not list(out.iterdir())


def test_a_writer_that_fails_leaves_no_empty_folder_of_its_own(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    for out in (mine, tmp_path / "new", tmp_path / "used"):
        with pytest.raises(KeyError), files.one_writer(out):
            (tmp_path / "used/made").touch() if out.name == "used" else None
            raise KeyError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "used"]


def test_a_disk_without_locks_says_so(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with files.one_writer(tmp_path):
        assert capsys.readouterr().err.startswith(f"{tmp_path}: the disk has no locks")
    (tmp_path / ".made.0123abcd.tmp").write_text("another writer's, perhaps")
    with files.write_file(tmp_path / "made"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".made.0123abcd.tmp", "made"]


# ---- reading


def test_lines_keep_their_numbers_and_odd_characters(tmp_path):
    path = write(tmp_path, '\ufeff{"a": "x\u2028y"}\n\n  {"a": "z", "n": 2}\r\n')
    first, second = read_json_lines(path)
    assert first.get("a", str) == "x\u2028y" and first.where == f"{path}, line 1"
    assert second.where == f"{path}, line 3" and second.get("n", int) == 2 == second.get("n", float)
    assert second.get("b", str, "default") == "default"


def test_a_list_and_lines_give_the_same_records(tmp_path):
    listed = read_records(write(tmp_path, '[{"a": 1},\n {"a": 2}]'))
    lines = read_records(write(tmp_path, '{"a": 1}\n{"a": 2}'))
    assert [r.values for r in listed] == [r.values for r in lines] == [{"a": 1}, {"a": 2}]
    assert listed[1].where.endswith("record 2")


def test_spans_and_nested_records(tmp_path):
    record = read_json(write(tmp_path, '{"t": "abc", "s": [{"start": 0, "end": 2}], "w": ["x", "y"]}'))
    (item,) = record.list("s")
    assert item.span("abc") == (0, 2) and item.span("abc", inclusive=True) == (0, 3)
    assert record.texts("w") == ["x", "y"]
    with pytest.raises(ValueError, match="s 1: fields 'start' and 'end' are 0 and 2, .* of 2 characters"):
        item.span("ab", inclusive=True)


@pytest.mark.parametrize(
    "line, read, message",
    [
        ("{", lambda r: r, "line 1, column 2: invalid JSON"),
        ("[1]", lambda r: r, "line 1 is .1., expected an object"),
        (f'{{"a": {10**400}}}', lambda r: r.get("a", float), "field 'a' is 100+\\.\\.\\., expected a number"),
        ('{"a": 1}', lambda r: r.get("b", str), "line 1: field 'b' is missing, expected a string"),
        ('{"a": "1"}', lambda r: r.get("a", int), "line 1: field 'a' is \"1\", expected an integer"),
        ('{"a": true}', lambda r: r.get("a", int), "field 'a' is true, expected an integer"),
        ('{"a": 1.5}', lambda r: r.get("a", int), "field 'a' is 1.5, expected an integer"),
        ('{"a": null}', lambda r: r.get("a", str, ""), "field 'a' is null, expected a string"),
        ('{"a": [{}, 3]}', lambda r: r.list("a"), "line 1: a 2 is 3, expected an object"),
        ('{"start": 2, "end": 2}', lambda r: r.span("abc"), "are 2 and 2, expected a span inside the text of 3"),
        ('{"start": -1, "end": 2}', lambda r: r.span("abc"), "are -1 and 2"),
    ],
)
def test_errors_name_the_place(tmp_path, line, read, message):
    with pytest.raises(ValueError, match=message) as error:
        for record in read_json_lines(write(tmp_path, line)):
            read(record)
    assert "data.jsonl" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("value, expected", [("q1", "q1"), (272819, "272819"), (-3, "-3"), (None, "here"), ("", "")])
def test_ids_are_texts_or_whole_numbers(value, expected):
    assert Record("line 1", {"id": value}).id("here") == expected


@pytest.mark.parametrize("value", [1.5, True, [1], {"a": 1}])
def test_other_ids_are_named(value):
    with pytest.raises(ValueError, match="line 1: field 'id' is .*, expected a"):
        Record("line 1", {"id": value}).id("here")


def test_half_of_a_pair_of_units_is_replaced(tmp_path):
    """JSON may spell what UTF-8 cannot hold: the text stays as long as it was, and whole pairs are what they are."""
    line = r'{"text": "x\ud83d\u00e9 \ud83d\ude00\ude00\uD800", "\udfff": [1.5, null, "\\ud83d"]}'
    (record,) = read_json_lines(write(tmp_path, line, "data.jsonl"))
    assert record.values == {"text": "x\ufffd\xe9 \U0001f600\ufffd\ufffd", "\ufffd": [1.5, None, r"\ud83d"]}
    assert parse_record(b"\xef\xbb\xbf" + line.encode(), "line 1").values == record.values


def test_lines_that_are_no_text_are_named():
    with pytest.raises(ValueError, match=r"line 2: not UTF-8 text \(at character 3\)"):
        files.line_records(["Zo\xeb", b"Zo\xeb".decode(errors="surrogateescape")], files.parse_record)


UTF_8 = r"""
import sys
from luke_mini import files
def main():
    print(ascii(sys.stdin.readlines()))
    print("\u0411\U0001f600", chr(0xd83d))
    raise ValueError("Zo\u00eb " + sys.argv[1])
files.run(main, "it")
"""


@pytest.mark.parametrize("locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
                                    {"PYTHONIOENCODING": "latin-1"}, {}])  # fmt: skip
def test_scripts_read_and_write_utf_8_whatever_the_locale(locale):
    given = b"\xef\xbb\xbf\xd0\x91\rb\r\n\xeb\xc2\x85x\xef\xbb\xbf\n"
    done = subprocess.run([sys.executable, "-c", UTF_8, b"\xeb"], input=given, capture_output=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)} | locale)  # fmt: skip
    assert done.returncode == 2
    lines, shown = done.stdout.splitlines()
    assert lines == rb"['\u0411\rb\r\n', '\udceb\x85x\ufeff\n']"
    assert shown == "\u0411\U0001f600 ".encode() + rb"\ud83d"
    assert done.stderr.startswith("it: error: Zo\xeb ".encode()) and done.stderr.count(b"\n") == 1


def test_errors_of_whole_files(tmp_path):
    with pytest.raises(ValueError, match=r"data.json, line 2, column 5: invalid JSON"):
        read_json(write(tmp_path, "{\n\"a\" 1}", "data.json"))
    path = tmp_path / "latin.json"
    path.write_bytes(b'{"a": "\xe4"}')
    with pytest.raises(ValueError, match="not UTF-8 text"):
        read_json(path)


@pytest.mark.parametrize(
    "error, looked",
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "mine/train.jsonl"), True),
        (ValueError("mine/here: no manifest.json"), True),
        (ValueError("mine: expected train.jsonl there"), True),
        (ValueError("there/file.json, line 3: field 'a' is missing"), False),
        (ValueError("--dropout 2.0: expected less"), False),
        (ValueError("no example: no sentence of 5 tokens"), False),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/mine/train.jsonl"), False),
        (OSError(errno.ENOSPC, "No space left on device", "mine/model.safetensors"), False),
        (OSError("mine.example.org/sw: the server answers 500"), False),
    ],
)
def test_a_missing_relative_path_says_where_it_was_looked_for(tmp_path, monkeypatch, capsys, error, looked):
    (tmp_path / "there").mkdir()
    write(tmp_path / "there", "{}", "file.json")
    monkeypatch.chdir(tmp_path)

    def main():
        raise error

    with pytest.raises(SystemExit, match="2"):
        run(main, "train.py")
    assert capsys.readouterr().err == f"train.py: error: {error}{f' (looked in {tmp_path})' * looked}\n"


def test_whatever_a_damaged_file_holds_its_error_is_one_line(tmp_path, capsys):
    path = write(tmp_path, json.dumps({"a\nb\u2028\x1b[2J": 1, "9" * 5000: 2}))
    with pytest.raises(SystemExit, match="2"):
        run(lambda: read_json(path).get("c", str), "it")
    (line,) = capsys.readouterr().err.splitlines()
    where = f"it: error: {path}: field 'c' is missing, expected a string"
    assert line.startswith(f"{where}; fields: a\\nb\\u2028\\x1b[2J, 99")
    assert line.endswith("99") and len(line) < 1100


def test_durations():
    found = [files.duration(seconds) for seconds in (7.4, 119, 121, 7199, 7300, 172_000, 2_592_000)]
    assert found == ["7 s", "119 s", "2 min", "120 min", "2 hours", "48 hours", "30 days"]
