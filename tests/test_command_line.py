"""The three scripts' command lines: quick answers, typing errors, old Pythons, a used OUT, missing paths.

pytest tests/test_command_line.py
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from luke_mini import export, inference, tasks

ROOT = Path(__file__).parent.parent
SCRIPTS = ("finetune.py", "train.py", "prepare_wiki.py")


def call(*command: str, cwd: Path = ROOT, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    script, *arguments = " ".join(command).split()
    line = [sys.executable, *flags, str(ROOT / script), *arguments]
    return subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "command, status, said",
    [
        ("finetune.py", 2, "required: TASK"),
        ("finetune.py -h", 0, "Named entity recognition"),
        ("finetune.py ner -h", 0, "conll-multilingual"),
        ("finetune.py link -h", 0, "--mentions"),
        ("finetune.py qa --describe", 0, "SQuAD 1.1"),
        ("finetune.py nre", 2, "did you mean ner?"),
        ("train.py -h --recipe luke-base --stage 1", 0, "peak learning rate [0.0005]"),
        ("train.py --recipe luke-base --stage 1", 2, "give --init DIR"),
        ("train.py --recipe luke-base", 2, "has two stages"),
        ("train.py --stage 2", 2, "has one stage"),
        ("train.py --masked-word-prob 2", 2, "expected a number, 0 or more, below 1"),
        ("prepare_wiki.py -h", 0, "MediaWiki XML"),
        ("prepare_wiki.py --workers 0", 2, "expected a positive number"),
    ],
)
def test_the_first_answers_wait_for_no_heavy_import(command, status, said):
    done = call(command, flags=("-X", "importtime"))
    imported = re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE)
    assert done.returncode == status and said in " ".join((done.stdout + done.stderr).split())
    assert "luke_mini.config" in imported and not {"torch", "numpy", "tqdm"} & set(imported)


@pytest.mark.parametrize(
    "command, usage, meant",
    [
        ("finetune.py relatoin --lr 1", "finetune.py TASK [OPTION ...]", "relation"),
        ("finetune.py ner --epohcs 3", "finetune.py ner [OPTION ...]", "--epochs"),
        ("finetune.py mlama --word-only=1", "finetune.py mlama [OPTION ...]", "--words-only"),
        ("finetune.py relation --head entty", "finetune.py relation [OPTION ...]", "entity"),
        ("finetune.py link --chek x", "finetune.py link [OPTION ...]", "--checkpoint"),
        ("finetune.py ner xyz", "finetune.py ner [OPTION ...]", None),
        ("train.py --stepz 3", "train.py [OPTION ...]", "--steps"),
        ("prepare_wiki.py --vocabsize 3", "prepare_wiki.py [OPTION ...]", "--vocab-size"),
    ],
)
def test_a_typing_error_names_what_was_meant(command, usage, meant):
    done = call(command)
    first, second = done.stderr.splitlines()
    assert done.returncode == 2 and first == f"usage: {usage}"
    assert second.endswith(f"; did you mean {meant}?") if meant else "did you mean" not in second


def test_the_command_line_knows_the_modules():
    """What tasks.py says of a task is what its module and export.py are."""
    assert list(tasks.TASKS) == list(inference.TASKS)
    for name, task in tasks.TASKS.items():
        module = inference.TASKS[name]
        assert module.Options is task.options and module.FILES is task.files and module.TRAINS == task.trains
        assert task.exports == (name in export.INPUTS)
        assert task.summary == module.__doc__.split("\n")[0]
    for name in ("ner", "relation"):
        choices = tasks.TASKS[name].options.__dataclass_fields__["head"].metadata["choices"]
        assert set(choices) == set(inference.TASKS[name].HEAD_INPUTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_old_python_gets_one_line(script, monkeypatch):
    """The script is in the grammar of Python 3.8; what runs before the check is the standard library alone."""
    text = (ROOT / script).read_text(encoding="utf-8")
    ast.parse(text, feature_version=(3, 8))
    head, check, _ = text.partition("if sys.version_info")
    assert check and "luke_mini import" not in head.split('"""')[2]
    monkeypatch.setattr(sys, "version_info", (3, 8, 10))
    monkeypatch.setattr(sys, "version", "3.8.10 (default)")
    with pytest.raises(SystemExit, match=f"^{script}: needs Python 3.11 or newer, this is 3.8.10$"):
        exec(compile(text, script, "exec"), {"__name__": script, "__doc__": ""})
