"""Opening fine-tuned folders and answering with them; entity linking, whose choices a model with known biases decides.

pytest tests/test_inference.py
"""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest
import torch

import finetune
from luke_mini import checkpoint, finetuning, inference, task_disambiguation, task_ner, task_relation, task_typing
from luke_mini import views
from luke_mini.config import ModelConfig
from luke_mini.entity_vocab import EntityVocab
from luke_mini.mentions import HELD_OUT, STATISTICS, Mentions, from_links, with_items
from luke_mini.initialization import initialize
from luke_mini.model import LukeForPretraining

TITLES = ["[PAD]", "[UNK]", "[MASK]", "Ada Lovelace", "Ada, Oklahoma", "Oslo", "[MASK2]"]
LINKS = {("ada", "Ada Lovelace"): 7, ("ada", "Ada, Oklahoma"): 3, ("oslo", "Oslo"): 5, ("berg", "Nowhere"): 1}
LINES = ["Ada met Bo in Oslo.", "Nothing here.", "In Oslo, ADA."]
SHAPE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
         "entity_emb_size": 8}  # fmt: skip


@pytest.fixture(scope="module")
def words(tiny_checkpoint):
    return checkpoint.read(tiny_checkpoint).tokenizer


@pytest.fixture(scope="module")
def statistics(tmp_path_factory):
    """The mention statistics, and a file of them."""
    path = tmp_path_factory.mktemp("statistics") / "mentions.safetensors"
    made = from_links(LINKS)
    made.save(path)
    return made, path


def pretrained(folder, words, favourite=None):
    """A checkpoint whose masked-entity head likes one title above all, whatever the text."""
    vocab = EntityVocab.from_titles(TITLES)
    shape = ModelConfig(vocab_size=len(words), entity_vocab_size=len(vocab), **SHAPE)
    model = LukeForPretraining(shape)
    initialize(model, shape, seed=0)
    if favourite:
        with torch.no_grad():
            model.entity_head.bias[vocab.id(favourite)] = 20.0
    checkpoint.save(folder, model, words, vocab)
    return folder


def finetuned(folder, words, task, labels, **settings):
    vocab = EntityVocab.from_titles(checkpoint.LITE_ENTITIES)
    shape = ModelConfig(vocab_size=len(words), entity_vocab_size=len(vocab), **SHAPE)
    model = task.build_model(shape, vocab, labels)
    initialize(model, shape, seed=1)
    settings |= {"architectures": [getattr(model, "architecture", task.ARCHITECTURE)], "id2label": {str(i): name for i, name in enumerate(labels)}}
    checkpoint.save(folder, model, words, vocab, settings)
    return folder


# --- Opening ----------------------------------------------------------------------------------------------------------


def test_the_folder_tells_the_task(words, tmp_path):
    """A released one by its architecture; ours by its settings too, in OUT/model, with the options of the run."""
    labels = ("NIL", "PER", "LOC")
    released = inference.load(finetuned(tmp_path / "released", words, task_ner, labels))
    assert released.task is task_ner and released.model.labels == labels and not released.model.training
    assert released.options == task_ner.Options()
    ours = {"luke_mini": {"task": "ner", "options": {"max_mention": 5}}}
    finetuned(tmp_path / "run/model", words, task_ner, labels, **ours)
    assert inference.load(tmp_path / "run").options.max_mention == 5
    changed = inference.load(tmp_path / "run", changes={"max_candidates": 7}).options
    assert (changed.max_mention, changed.max_candidates) == (5, 7)


@pytest.mark.parametrize(
    "task_name, message", [(None, "'disambiguation' or 'mlama'"), ("relation", "not fine-tuned for relation")]
)
def test_a_folder_that_does_not_tell_or_tells_another_task(words, tmp_path, task_name, message):
    folder = pretrained(tmp_path / "checkpoint", words)
    with pytest.raises(ValueError, match=message) as error:
        inference.load(folder, task_name)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
    assert inference.load(folder, "disambiguation").options.order == "confidence"


def test_options_of_another_task_are_not_taken(words, tmp_path):
    """A model fine-tuned for disambiguation, which mLAMA probes: both have an option `language`."""
    folder = pretrained(tmp_path / "checkpoint", words)
    found = checkpoint.read(folder)
    settings = found.settings | {"luke_mini": {"task": "disambiguation", "options": {"language": "en"}}}
    checkpoint.save(folder, checkpoint.build(found), words, found.entity_vocab, settings)
    assert inference.load(folder).options.language == "en"
    assert inference.load(folder, "mlama").options == inference.TASKS["mlama"].Options()


def test_the_python_call_and_the_command_line_answer_the_same(words, tmp_path, capsys):
    folder = finetuned(tmp_path / "model", words, task_relation, ("no_relation", "a", "b"))
    lines = ["<e1> Ada </e1> met <e2> Bo </e2> .", "<e2> Oslo </e2> is <e1> here </e1> ."]
    text = tmp_path / "lines.txt"
    text.write_text("\n\n".join(lines) + "\n")
    luke = inference.load(tmp_path)
    once = luke(lines)
    assert luke(lines[0]) == once[0] and once == inference.load(folder)(tuple(lines))
    finetune.main(["relation", "--checkpoint", str(tmp_path), "--predict", str(text)])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == once
    finetune.main(["relation", "--checkpoint", str(tmp_path), "--predict", str(text), "--view"])
    shown = capsys.readouterr().out.split("\n\n")
    assert shown[0].startswith("[Ada|head] met [Bo|tail] .\n→ ") and len(shown) == 3 and "\x1b" not in "".join(shown)
    page = tmp_path / "page.html"
    finetune.main(["relation", "--checkpoint", str(tmp_path), "--predict", str(text), "--html", str(page)])
    assert capsys.readouterr().out == "" and "<mark" in page.read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        finetune.main(["relation", "--predict", str(text), "--html", "a.html", "--view"])


def test_a_faulty_line_is_named_and_the_others_are_answered(words, tmp_path, capsys, monkeypatch):
    finetuned(tmp_path / "model", words, task_typing, ("person",))
    file = tmp_path / "lines.txt"
    file.write_bytes("\ufeff<e>Ada</e> met Bo.\r\nAda\n\n<e>Bo</e> left.\n{\n<e>Bo</e> slept.".encode())
    call = ["typing", "--checkpoint", str(tmp_path)]
    missing = ": the marks are missing, expected <e> </e> around each mention"
    for source, place in ((str(file), f"{file}, line"), ("-", "standard input, line")):
        with monkeypatch.context() as patch, pytest.raises(SystemExit, match="2"):
            patch.setattr(sys, "stdin", file.open(encoding="utf-8-sig"))
            finetune.main([*call, "--predict", source])
        out, error = capsys.readouterr()
        assert [json.loads(line)["text"] for line in out.splitlines()] == ["Ada met Bo.", "Bo left.", "Bo slept."]
        first, second = error.splitlines()
        assert first == f"finetune.py: error: {place} 2{missing}"
        assert second.startswith(f"finetune.py: error: {place} 5, column 2: invalid JSON"), second
    for given in (["--text", "<e>Bo</e> left.", "<e>Bo</e> slept."], ["--predict", "<e>Bo</e> left."]):
        finetune.main([*call, *given])  # a text where a file is expected is one, too
        assert json.loads(capsys.readouterr().out.splitlines()[0])["text"] == "Bo left."
    with pytest.raises(SystemExit, match="2"):
        finetune.main([*call, "--text", "Bo"])
    assert capsys.readouterr().err == f"finetune.py: error: text 1{missing}\n"
    with pytest.raises(OSError, match="absent.txt"):
        finetune.main([*call, "--predict", "absent.txt"])


@pytest.mark.parametrize("task", ["ner", "link"])
def test_lines_typed_at_a_terminal_are_answered_at_once(words, statistics, tmp_path, task, request):
    """Three lines, each answered before the next is typed; Ctrl-C leaves one line."""
    arguments = [task, "--checkpoint", str(tmp_path)] + ["--predict", "-"] * (task == "ner")
    if task == "ner":
        finetuned(tmp_path / "model", words, task_ner, task_ner.CONLL_LABELS)
    else:
        pretrained(tmp_path / "model", words, "Oslo")
        arguments += ["--mentions", str(statistics[1]), "--model-weight", "0.5", "--min-probability", "0"]
    terminal, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "finetune.py", *arguments], cwd=Path(finetune.__file__).parent, start_new_session=True,
        stdin=other, stdout=other, stderr=other, env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # else ignored in the background
    )  # fmt: skip
    request.addfinalizer(process.kill)
    os.close(other)

    def shown(end: str) -> str:
        text = ""
        while not text.endswith(end):
            assert select.select([terminal], [], [], 60)[0], text
            text += os.read(terminal, 4096).decode()
        return text

    assert shown("> ") == "A text per line; Ctrl-D ends.\r\n> "
    for line in LINES:
        os.write(terminal, f"{line}\n".encode())
        typed, answer, _ = shown("> ").split("\r\n")
        assert typed == line and json.loads(answer)["text"] == line
    process.send_signal(signal.SIGINT)
    assert shown("\r\n") == "finetune.py: interrupted\r\n"
    assert process.wait(30) == 130
    os.close(terminal)


SPAN = {"start": 0, "end": 3}
OWN = {  # a line for each task, and what must be seen of it
    "ner": ("Ada met Bo.", ""),
    "relation": ("<e1>Ada</e1> met <e2>Bo</e2>.", "[Ada|head] met [Bo|tail]."),
    "typing": ("<e>Ada</e> met Bo.", "[Ada|"),
    "qa": ("Who met Bo?\tAda met Bo.", "Who met Bo?\n"),
    "cloze": (json.dumps({"text": "Ada met Bo.", "spans": [SPAN], "query": "It was @placeholder"}), "met Bo."),
    "classification": ("Ada met Bo.", "Ada met Bo.\n→ "),
    "disambiguation": (json.dumps({"text": "Ada met.", "spans": [SPAN | {"candidates": {"Oslo": 1.0}}]}), "[Ada|Oslo]"),
    "mlama": (json.dumps({"template": "[X] met [Y] .", "subject": "Ada", "candidates": ["Bo", "Oslo"]}), "by words: "),
}


@pytest.mark.parametrize("name", inference.TASKS)
def test_what_every_task_answers_can_be_seen(tiny_checkpoint, tmp_path, name):
    """Its answer, from a model with random weights, has a view that shows the text."""
    task, folder = inference.TASKS[name], tiny_checkpoint
    if name not in ("disambiguation", "mlama"):
        start = inference.open_checkpoint(tiny_checkpoint, task)
        start = task.prepare(start) if hasattr(task, "prepare") else start
        labels = ("a", "b") if name in ("ner", "relation", "typing", "classification") else ()
        model = task.build_model(start.config, start.entity_vocab, labels)
        initialize(model, start.config, seed=0)
        settings = {"architectures": [finetuning.architectures(task)[0]], "luke_mini": {"task": name}}
        settings |= {"id2label": {str(i): label for i, label in enumerate(labels)}}
        folder = tmp_path / "model"
        checkpoint.save(folder, model, start.tokenizer, start.entity_vocab, settings)
    line, seen = OWN[name]
    (answer,) = inference.answer(inference.load(folder, name), [line])
    shown = views.show(answer)
    assert seen in views.to_terminal(shown, color=False)
    assert "Ada" in shown.heading + "".join(passage.text for passage in shown.passages)
    for passage in shown.passages:
        assert all(0 <= mark.start < mark.end <= len(passage.text) for mark in passage.marks)


# --- Linking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("favourite", ["Ada Lovelace", "Ada, Oklahoma", "Oslo"])
def test_the_model_chooses_among_the_candidates(words, statistics, tmp_path, favourite):
    """The title that the model likes wins where it is a candidate; a single candidate is the answer anyway."""
    folder = pretrained(tmp_path / "checkpoint", words, favourite)
    first, second, third = inference.link(inference.load(folder, "disambiguation"), statistics[0], LINES)
    assert [answer["text"] for answer in (first, second, third)] == LINES and second["mentions"] == []
    for answer in (first, third):
        ada, oslo = sorted(answer["mentions"], key=lambda mention: mention["text"].lower())
        assert answer["text"][ada["start"] : ada["end"]] == ada["text"] in ("Ada", "ADA")
        assert answer["text"][oslo["start"] : oslo["end"]] == oslo["text"] == "Oslo"
        assert oslo["title"] == "Oslo" and oslo["probability"] == 1
        assert [(c["title"], c["prior"]) for c in ada["candidates"]] == [("Ada Lovelace", 0.7), ("Ada, Oklahoma", 0.3)]
        assert sum(c["model"] for c in ada["candidates"]) == pytest.approx(1, abs=2e-4) and "address" not in ada
        if favourite != "Oslo":
            assert {c["title"]: c["model"] > 0.99 for c in ada["candidates"]}[favourite]
            assert ada["title"] == favourite and ada["probability"] > 0.99


def test_mentions_of_a_ner_model(words, statistics, tmp_path):
    """They keep their type; one that nobody links has no title; one the vocabulary lacks has its first candidate."""

    def find(texts, _):
        (line,) = texts
        return {"text": line, "mentions": [
            {"text": name, "type": kind, "start": line.index(name), "end": line.index(name) + len(name)}
            for name, kind in (("Ada", "PER"), ("Bo Hagen", "PER"), ("Berg", "LOC")) if name in line]}  # fmt: skip

    task = SimpleNamespace(
        unmark=task_ner.unmark, from_record=lambda record, *_: [record.get("text", str)], make_features=lambda *_: [],
        predict=lambda _, __, texts: texts, answer=find,
    )  # fmt: skip
    ner = inference.Predictor(task, None, None, None, None)
    folder = pretrained(tmp_path / "checkpoint", words, "Ada, Oklahoma")
    linker = inference.load(folder, "disambiguation")
    (answer,) = inference.link(linker, statistics[0], ["{Ada} met Bo Hagen in Berg and Oslo."], ner)
    found = [(m["text"], m["type"], m["title"], len(m["candidates"])) for m in answer["mentions"]]
    assert found == [("Ada", "PER", "Ada, Oklahoma", 2), ("Bo Hagen", "PER", None, 0), ("Berg", "LOC", "Nowhere", 1)]
    assert answer["mentions"][1]["probability"] == 0


def test_a_lite_model_cannot_link(words, statistics, tmp_path):
    pretrained(tmp_path / "whole", words)
    checkpoint.write_files(_made(tmp_path / "lite"), checkpoint.lite(checkpoint.read(tmp_path / "whole")))
    with pytest.raises(ValueError, match="lite"):
        inference.load_linker(tmp_path / "lite", statistics[1])


def _made(folder):
    folder.mkdir()
    return folder


def test_linking_from_the_command_line(words, statistics, tmp_path, capsys, monkeypatch):
    folder = pretrained(tmp_path / "checkpoint", words, "Ada, Oklahoma")
    text = tmp_path / "text.txt"
    text.write_text("\n".join(LINES))
    call = ["link", "--checkpoint", str(folder), "--mentions", str(statistics[1]), "--predict", str(text)]
    finetune.main(call)
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert answers == list(inference.link(*inference.load_linker(folder, statistics[1]), LINES))
    ada = answers[0]["mentions"][0]  # half of the model's logarithms, half of the prior's; ten links on ten pages
    assert ada["title"] == "Ada, Oklahoma" and 0.8 < ada["probability"] < 10 / 11
    assert answers[0]["mentions"][1]["probability"] == pytest.approx(5 / 6, abs=1e-4)  # a lone candidate
    finetune.main([*call, "--min-probability", "0.85"])
    found = [m["title"] for line in capsys.readouterr().out.splitlines() for m in json.loads(line)["mentions"]]
    assert sorted(map(str, found)) == ["Ada, Oklahoma"] * 2 + ["None"] * 2
    finetune.main([*call, "--model-weight", "0", "--min-probability", "0"])  # the prior alone
    found = [json.loads(line)["mentions"] for line in capsys.readouterr().out.splitlines()]
    assert (found[0][0]["title"], found[0][0]["probability"]) == ("Ada Lovelace", round(0.7 * 10 / 11, 4))
    finetune.main([*call, "--view", "--order", "local"])
    assert "[Ada|Ada, Oklahoma] met Bo in [Oslo]." in capsys.readouterr().out
    finetune.main([*call, "--min-link-probability", "1.1"])
    assert all(not json.loads(line)["mentions"] for line in capsys.readouterr().out.splitlines())


def test_linking_the_built_in_encyclopedia(toy_data, tmp_path, capsys):
    """Texts about it: spans and titles fit together, and names of one title mean it whatever the weights are.

    Here the items of Wikidata are the lengths of the titles.
    """
    _random_checkpoint(toy_data, tmp_path / "checkpoint")
    text = tmp_path / "texts.txt"
    raw = sorted((toy_data / "disambiguation/test/RawText").iterdir())
    text.write_text("\n".join(" ".join(path.read_text().split()) for path in raw))
    statistics = with_items(Mentions.load(toy_data / STATISTICS), lambda title: f"Q{len(title)}")
    statistics.save(tmp_path / STATISTICS)
    finetune.main(["link", "--checkpoint", str(tmp_path / "checkpoint"), "--mentions", f"{tmp_path}/{STATISTICS}",
                   "--predict", str(text), "--min-probability", "0"])  # fmt: skip
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    mentions = [(answer["text"], mention) for answer in answers for mention in answer["mentions"]]
    assert len(answers) == len(raw) and len(mentions) > 20
    for line, mention in mentions:
        assert line[mention["start"] : mention["end"]] == mention["text"]
        titles = [candidate["title"] for candidate in mention["candidates"]]
        assert mention["title"] in titles or len(titles) == task_disambiguation.SHOWN_CANDIDATES
        if len(titles) == 1:
            assert mention["title"] == titles[0] and 0 < mention["probability"] < 1
        assert unquote(mention["address"]) == "https://toyworld.example.org/wiki/" + mention["title"].replace(" ", "_")
        assert mention["title"] not in titles or mention["wikidata"] == f"Q{len(mention['title'])}"


def held_out(folder, *lines):
    """A folder with the statistics and texts with links, one a line: (text, surface, title)."""
    folder.mkdir(exist_ok=True)
    from_links(LINKS).save(folder / STATISTICS)
    spans = [{"start": t.index(name), "end": t.index(name) + len(name), "title": title} for t, name, title in lines]
    records = [{"id": "A", "text": text, "spans": [span]} for (text, _, _), span in zip(lines, spans)]
    (folder / HELD_OUT).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / STATISTICS


@pytest.mark.parametrize(
    "favourite, is_right", [("Ada, Oklahoma", True), ("Ada, Oklahoma", False), ("Ada Lovelace", True)]
)
def test_the_model_counts_only_where_held_out_links_say_so(words, tmp_path, capsys, favourite, is_right):
    """A model that always says one thing: it counts if that is right and the prior is not. "berg" is NIL."""
    folder = pretrained(tmp_path / "model", words, favourite)
    meant = favourite if is_right else "Ada Lovelace"
    texts = [(f"Ada met {k}.", "Ada", meant) for k in range(8)]
    path = held_out(tmp_path / "data", *texts, ("In Berg.", "Berg", "Hill"))
    linker, statistics = inference.load_linker(folder, path)
    said = capsys.readouterr().err.splitlines()
    mix = json.loads((folder / inference.MIX).read_text())
    prior = 8 * (meant == "Ada Lovelace")
    assert (mix["links"], mix["prior_right"], mix["right"]) == (9, prior, 8)
    assert (mix["model_weight"] > 0) == (meant == "Ada, Oklahoma") and len(said) == 1 and "9 held-out links" in said[0]
    assert linker.options.model_weight == linker.model.options.model_weight == mix["model_weight"]
    (answer,) = inference.link(linker, statistics, ["Ada in Berg."])
    nowhere = None if meant == "Ada, Oklahoma" else "Nowhere"  # 1 / 2 is below what Ada has; a title costs no other
    assert [m["title"] for m in answer["mentions"]] == [meant, nowhere] and 0.5 < mix["nil_probability"] < 10 / 11
    assert inference.load_linker(folder, path)[0].options == linker.options and not capsys.readouterr().err  # kept
    more = held_out(tmp_path / "data", *[(f"Ada saw {k}.", "Ada", "Ada Lovelace") for k in range(20)])
    assert inference.load_linker(folder, more)[0].options.model_weight == 0 and "20 held-out" in capsys.readouterr().err
    inference.load_linker(folder, more, {"model_weight": 0.3, "min_probability": 0.1})
    assert json.loads((folder / inference.MIX).read_text())["links"] == 20


def test_a_mix_that_cannot_be_kept_is_used_and_said(words, tmp_path, capsys):
    folder = pretrained(tmp_path / "model", words, "Ada, Oklahoma")
    path = held_out(tmp_path / "data", *[(f"Ada met {k}.", "Ada", "Ada, Oklahoma") for k in range(8)])
    place = folder / inference.MIX
    place.mkdir()  # so that no file can take its name
    linker, _ = inference.load_linker(folder, path)
    (line,) = capsys.readouterr().err.splitlines()
    assert linker.options.model_weight > 0 and "written to" not in line and "; not kept: [Errno 21]" in line
    assert str(place) in line and [*folder.glob(".*")] == []


def test_a_given_model_weight_takes_no_threshold_from_the_mix(words, tmp_path):
    """Held-out links would choose the prior, and a threshold for it."""
    folder = pretrained(tmp_path / "model", words, "Ada, Oklahoma")
    path = held_out(tmp_path / "data", *[("In Berg.", "Berg", "Hill")] * 3)
    mix = {"model_weight": 0.0, "min_probability": 0.5, "nil_probability": 0.5, "links": 3, "prior_right": 0, "right": 0}
    statistics = Mentions.load(path)
    data = f"{len(statistics)} names, {statistics.links.sum()} links, "
    data += f"{(path.parent / HELD_OUT).stat().st_size} bytes held out"
    (folder / inference.MIX).write_text(json.dumps(mix | {"data": data}))
    found = [inference.load_linker(folder, path, changes)[0].options
             for changes in ({}, {"model_weight": 0.3}, {"min_probability": 0.2})]  # fmt: skip
    assert [(one.model_weight, one.min_probability) for one in found] == [(0.0, 0.5), (0.3, 0.0), (0.0, 0.2)]


def test_statistics_are_the_runs_own_and_others_are_named(words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no data/toyworld here
    folder = pretrained(tmp_path / "run/step-000001", words)
    own = held_out(tmp_path / "run")
    fixed = {"model_weight": 0.5, "min_probability": 0.0}
    assert inference.load_linker(tmp_path / "run", changes=fixed)[0].options.mentions == str(own)
    assert not capsys.readouterr().err
    from_links({("ada", "Ada of Elsewhere"): 1, ("oslo", "Oslo"): 1, ("x", "X"): 1}).save(tmp_path / "other")
    inference.load_linker(folder, tmp_path / "other", fixed)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{tmp_path}/other: 33% of its titles are in the model's entity vocabulary")
    with pytest.raises(ValueError, match="no mentions.safetensors there or above"):
        inference.load_linker(pretrained(tmp_path.parent / "a/b/c/d/e", words))


def _random_checkpoint(toy_data, folder):
    from luke_mini import tokenizer

    words, vocab = tokenizer.load(toy_data / "tokenizer"), EntityVocab.load(toy_data / "entity_vocab.jsonl")
    shape = ModelConfig(vocab_size=len(words), entity_vocab_size=len(vocab), **SHAPE)
    model = LukeForPretraining(shape)
    initialize(model, shape, seed=0)
    checkpoint.save(folder, model, words, vocab)
    return folder
