"""finetune.py from end to end on a small cut of the built-in encyclopedia, and its one-line errors.

pytest tests/test_finetune.py
"""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import shared_data
from safetensors.torch import load_file, save_file

import finetune
import train
from luke_mini import checkpoint, finetuning, inference, metrics, progress, saves, task_ner, task_qa, task_relation
from luke_mini.config import FinetuneConfig
from luke_mini.distributed import Rank
from luke_mini.initialization import initialize
from luke_mini.model import LukeForPretraining

ROOT = Path(__file__).parent.parent
SMALL = "--epochs 1 --train-examples 5 --dev-examples 3 --test-examples 4"
ALL_TYPES = "--train-examples 80"  # as many sentences as have a mention of each type


def read_documents(path: Path) -> list:
    return finetuning.read_examples(task_ner, path, task_ner.Options())


@pytest.fixture(scope="module")
def pretrained(toy_data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("pretrained")
    train.main(f"--data {toy_data} --out {out} --steps 3 --global-batch 8 --micro-batch 8 --overwrite".split())
    return out


@pytest.fixture(scope="module")
def run(pretrained, toy_data):
    """run("ner", out, "--lr 1"): fine-tunes on a few examples of the built-in encyclopedia."""

    def run(task: str, out: Path, options: str = "") -> None:
        common = f"--checkpoint {pretrained} --data {toy_data}/{task} --out {out} {SMALL}"
        finetune.main(f"{task} {common} {options}".split())

    return run


@pytest.fixture(scope="module")
def finetuned(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("finetuned")
    run("ner", out, ALL_TYPES)
    return out


def test_a_run_leaves_scores_predictions_and_a_model(finetuned, toy_data):
    results = json.loads((finetuned / "results.json").read_text())
    documents = task_ner.first(read_documents(toy_data / "ner/test.conll"), 4)  # sentences
    (scores,) = results["results"]["pretrained"]["scores"]["test"].values()
    assert results["data"]["test"]["examples"] == 4 and len(results["data"]["test"]["sha256"]) == 64
    assert 0 <= scores["f1"] <= 1 and scores["gold"] == sum(len(d.spans) for d in documents)
    lines = (finetuned / "test_predictions.txt").read_text().splitlines()
    words = [line.split(" ")[0] for line in lines if line]
    assert words == [word for document in documents for word in document.words]
    saved = checkpoint.read(finetuned / "model")
    assert saved.settings["id2label"] == {"0": "NIL", "1": "MISC", "2": "PER", "3": "ORG", "4": "LOC"}
    assert len(saved.entity_vocab) == 4 and "classifier.weight" in saved.weights


def test_the_same_seed_gives_the_same_scores(finetuned, run, tmp_path):
    run("ner", tmp_path, ALL_TYPES)
    assert (tmp_path / "results.json").read_bytes() == (finetuned / "results.json").read_bytes()


@pytest.mark.parametrize("name", inference.TASKS)
def test_inputs_longer_than_the_positions_are_refused_before_the_first_step(name, tiny, toy_data, tmp_path):
    """A table of 66 rows has 64 positions. What others saved is asked in inputs as long as that, if nothing is said."""
    shape = replace(tiny.config, max_position_embeddings=66)
    model = LukeForPretraining(shape)
    initialize(model, shape, 0)
    checkpoint.save(tmp_path / "short", model, tiny.tokenizer, tiny.entity_vocab)
    call = [name, "--checkpoint", tmp_path / "short", "--data", toy_data / name, "--out", tmp_path / "out"]
    call += [word for split in inference.TASKS[name].FILES[0] for word in (f"--{split}-examples", 3)]
    call += ["--max-seq-length", 512]
    refused = "expected at most the checkpoint's 64 positions"
    with pytest.raises(ValueError, match=f"^--max-seq-length 512: {refused}$"):
        finetune.main([*map(str, call)])
    assert not (tmp_path / "out").exists()
    if name == "mlama":
        assert inference.load(tmp_path / "short", name).options.max_seq_length == 64
        with pytest.raises(ValueError, match=f"^--max-seq-length 65: {refused}$"):
            inference.load(tmp_path / "short", name, {"max_seq_length": 65})


def test_what_goes_wrong_with_the_predictions_does_not_cost_the_model(run, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("no room for predictions")

    monkeypatch.setattr(task_relation, "prediction_files", fail)
    with pytest.raises(ValueError, match="no room"):
        run("relation", tmp_path / "compared", "--compare-random")
    assert not (tmp_path / "compared/model").exists()  # the random weights are not what was asked for
    with pytest.raises(ValueError, match="no room"):
        run("relation", tmp_path / "one")
    assert inference.load(tmp_path / "one").task is task_relation


def test_a_file_that_is_not_utf_8_is_named(finetuned, tmp_path):
    (tmp_path / "text.txt").write_bytes("Zoë met Bo.\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"text.txt: not UTF-8 text \(.* at byte 2\)"):
        finetune.main(f"ner --checkpoint {finetuned} --predict {tmp_path / 'text.txt'}".split())
    with pytest.raises(ValueError, match=r"line 1: not UTF-8 text \(at character 3\)"):
        inference.load(finetuned)("Zo\udceb")
    with pytest.raises(ValueError, match=r"line 2: not UTF-8 text \(at character 1\)"):
        list(inference.link((None,) * 5, None, ["Ada", "\ud83d"]))


def test_predicting_on_own_sentences(finetuned, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("Ada met Bo in Oslo.\n\nNobody came.\u2028Really.\n", encoding="utf-8")
    finetune.main(f"ner --checkpoint {finetuned} --predict {text}".split())
    lines = [json.loads(line) for line in capsys.readouterr().out.removesuffix("\n").split("\n")]
    assert [line["text"] for line in lines] == ["Ada met Bo in Oslo.", "Nobody came.\u2028Really."]
    for line in lines:
        for mention in line["mentions"]:
            assert line["text"][mention["start"] : mention["end"]] == mention["text"]
            assert 0 < mention["probability"] <= 1


def test_a_word_decoder_that_was_trained_apart_is_named_by_both_scripts(pretrained, toy_data, tmp_path, capsys):
    folder = shutil.copytree(checkpoint.find_folder(pretrained), tmp_path / "start")
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.decoder.weight"] = tensors["lm_head.decoder.weight"] + 1
    save_file(tensors, folder / "model.safetensors")
    steps = "--steps 1 --global-batch 2 --micro-batch 2"
    train.main(f"--data {toy_data} --init {folder} --out {tmp_path / 'run'} {steps}".split())
    finetune.main(f"ner --checkpoint {folder} --data {toy_data}/ner --out {tmp_path / 'ner'} {SMALL}".split())
    said = [line for line in capsys.readouterr().out.splitlines() if "lm_head.decoder.weight (differs from" in line]
    assert len(said) == 2 and all(line.startswith("ignored  ") and line.endswith("not part of any LUKE model") for line in said)


def test_a_wrong_line_is_named_with_its_file(run, tmp_path, capsys):
    """Blank lines count for people, though nothing is answered for them."""
    run("relation", tmp_path)
    lines = tmp_path / "lines.txt"
    lines.write_text("<e1>Ada</e1> met <e2>Bo</e2>.\n\n\nAda met Bo.\n")
    with pytest.raises(SystemExit, match="2"):
        finetune.main(f"relation --checkpoint {tmp_path} --predict {lines}".split())
    assert "lines.txt, line 4: the marks are missing" in capsys.readouterr().err


def test_question_answering_with_entities(run, pretrained, toy_data, tmp_path, capsys):
    """The statistics of prepare_wiki.py give the entities, which stay as they were pretrained; then own questions."""
    run("qa", tmp_path, f"--mentions {toy_data}/mentions.safetensors")
    scores = json.loads((tmp_path / "results.json").read_text())["results"]["pretrained"]["scores"]["test"]
    (scores,) = scores.values()
    assert scores["questions"] == scores["answered"] == 4 and 0 <= scores["em"] <= scores["f1"] <= 1
    predicted = json.loads((tmp_path / "test_predictions.json").read_text())
    asked = task_qa.read_examples(toy_data / "qa/test-v1.1.json")[:4]
    assert list(predicted) == [one.id for one in asked]
    assert all(predicted[one.id] in one.context for one in asked)
    before, after = (checkpoint.read(folder).weights for folder in (pretrained, tmp_path / "model"))
    same = {name: bool((before[name] == after[name]).all()) for name in after if name in before}
    assert same["luke.entities.entity.weight"] and not same["luke.words.token.weight"]
    capsys.readouterr()
    lines = tmp_path / "lines.tsv"
    lines.write_text("Who?\tAda met Bo.\n")
    finetune.main(
        f"qa --checkpoint {tmp_path} --predict {lines} --metric squad2 --null-threshold -99 --n-best-size 99".split()
    )
    (answer,) = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert answer["answer"] == "" and "Ada" in {found["text"] for found in answer["answers"]}


def test_bad_input_is_one_line_and_exit_status_2(pretrained, tmp_path):
    """In a process of its own, as a user meets it."""
    text = tmp_path / "text.txt"
    text.write_text("Hello.\n")
    command = [sys.executable, "finetune.py", "ner", "--checkpoint", str(pretrained), "--predict", str(text)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"finetune.py: error: {pretrained}: not fine-tuned for ner")


def test_a_missing_column_is_named(toy_data, pretrained, tmp_path):
    data = shutil.copytree(toy_data / "ner", tmp_path / "ner")
    lines = (data / "train.conll").read_text().split("\n")
    lines[6] = lines[6].rsplit(" ", 1)[0]
    (data / "train.conll").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="train.conll, line 7: .*column"):
        finetune.main(f"ner --checkpoint {pretrained} --data {data} --out {tmp_path}/out".split())
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_lacks_a_file_is_named(toy_data, pretrained, tmp_path):
    folder = shutil.copytree(checkpoint.find_folder(pretrained), tmp_path / "checkpoint")
    (folder / "entity_vocab.json").unlink()
    with pytest.raises(ValueError, match="checkpoint/entity_vocab.json: missing"):
        finetune.main(f"ner --checkpoint {folder} --data {toy_data}/ner --out {tmp_path}/out".split())


def test_real_conll_files(pretrained, tmp_path):
    """A part of CoNLL-2003 goes in as published; a model that knows nothing gets a low score, but a score."""
    folder = shared_data("ner/eng.train").parent
    few = "--epochs 1 --train-examples 30 --dev-examples 40"
    finetune.main(f"ner --checkpoint {pretrained} --data {folder} --out {tmp_path} {few}".split())
    results = json.loads((tmp_path / "results.json").read_text())["results"]["pretrained"]
    (scores,) = results["scores"]["dev"].values()
    blocks = (folder / "eng.testa").read_text().split("\n\n")
    sentences = [block.split("\n") for block in blocks if not block.startswith("-DOCSTART-")][:40]
    tags = [[line.split(" ")[-1] for line in sentence] for sentence in sentences]
    assert scores["gold"] == sum(len(list(metrics.chunks(of_sentence))) for of_sentence in tags)


def test_what_a_score_says(run, toy_data, tmp_path, capsys):
    """Dev scores after each epoch, a table by label in the end, whose numbers are those of the predictions' file."""
    run("ner", tmp_path, f"{ALL_TYPES} --epochs 2 --test-examples 40 --learning-rate 1e-3")
    out = capsys.readouterr().out
    assert re.findall(r"^epoch (\S+), dev: precision \S+  recall \S+  f1 \S+$", out, re.MULTILINE) == ["1", "2"]
    table = out[out.index("precision    recall        f1   support\n") :].splitlines()[1:-1]
    sentences = (tmp_path / "test_predictions.txt").read_text().removesuffix("\n\n").split("\n\n")
    counts = {kind: Counter() for kind in ("gold", "predicted", "right")}
    for sentence in sentences:
        _, *tags = zip(*(line.split(" ") for line in sentence.split("\n")))
        gold, predicted = (set(metrics.chunks(list(column))) for column in tags)
        for kind, spans in zip(counts, (gold, predicted, gold & predicted)):
            counts[kind].update(label for _, _, label in spans)
    wanted = []
    for label in sorted(counts["gold"] | counts["predicted"]):
        gold, predicted, right = (counts[kind][label] for kind in counts)
        precision, recall = right / predicted if predicted else 0.0, right / gold if gold else 0.0
        f1 = 2 * precision * recall / (precision + recall) if right else 0.0
        wanted.append([label, *(f"{100 * score:.2f}" for score in (precision, recall, f1)), str(gold)])
    assert [line.split() for line in table] == wanted and len(wanted) == 4


def test_a_part_of_the_training_file_is_held_out(pretrained, toy_data, tmp_path, capsys):
    call = f"relation --checkpoint {pretrained} --train {toy_data}/relation/train.json --out {tmp_path} --epochs 1"
    finetune.main(f"{call} --train-examples 20 --dev-share 0.3".split())
    out = capsys.readouterr().out
    assert "dev   6 of the 20 training examples, 14 are left to train\n" in out and "relation F1 on dev: " in out
    assert len((tmp_path / "dev_predictions.txt").read_text().splitlines()) == 6
    with pytest.raises(ValueError, match="holds a run already; --resume, --overwrite or another --out"):
        finetune.main(call.split())
    call += " --overwrite"
    for share in ("1", "0.01"):
        with pytest.raises(ValueError, match=f"--dev-share {share}"):
            finetune.main(f"{call} --train-examples 20 --dev-share {share}".split())
    with pytest.raises(ValueError, match="--dev-share 0.5: expected .* no dev file"):
        finetune.main(f"{call} --train-examples 20 --dev-share 0.5 --dev {toy_data}/relation/dev.json".split())
    capsys.readouterr()
    finetune.main(f"{call} --train-examples 4".split())
    assert capsys.readouterr().out.endswith("--dev-share 0.1 holds out a part of the training file\n")


def test_a_head_starts_from_the_same_numbers_whatever_the_encoder(pretrained):
    start = inference.open_checkpoint(pretrained, task_ner)
    seen = {}
    for aware in (False, True):
        job = finetuning.Job(task_ner, task_ner.Options(), checkpoint.with_attention(start, aware), ("NIL", "X"), {}, {},
                             Rank(0, 1, torch.device("cpu")), "fp32", pretrained)  # fmt: skip
        for seed in (1, 2):
            seen[aware, seed] = finetuning.build(job, FinetuneConfig(seed=seed), random_weights=True).classifier.weight
    assert torch.equal(seen[False, 1], seen[True, 1]) and not torch.equal(seen[True, 1], seen[True, 2])


def test_a_grid_is_chosen_on_dev_and_scored_on_test(run, tmp_path, capsys):
    run("ner", tmp_path, "--seeds 1,2 --lr 1e-9,1e-3 --compare-random --select score")
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    for report in results.values():
        runs = {(run["learning_rate"], run["seed"]): run["dev"]["f1"] for run in report["runs"]}
        assert list(runs) == [(1e-9, 1), (1e-9, 2), (1e-3, 1), (1e-3, 2)]
        means = {rate: (runs[rate, 1] + runs[rate, 2]) / 2 for rate in (1e-9, 1e-3)}
        assert report["recipe"]["learning_rate"] == max(means, key=means.get)
        assert list(report["scores"]["test"]) == sorted(report["scores"]["test"], key=lambda s: runs[
            report["recipe"]["learning_rate"], int(s)])  # fmt: skip
    assert "NER F1 on test: " in capsys.readouterr().out.splitlines()[-1]


def test_several_rates_need_a_dev_file(pretrained, toy_data, tmp_path):
    (tmp_path / "train.conll").write_bytes((toy_data / "ner/train.conll").read_bytes())
    options = f"--data {tmp_path} --out {tmp_path}/out --lr 1e-3,1e-4 --train-examples 2"
    with pytest.raises(ValueError, match="need a dev file"):
        finetune.main(f"ner --checkpoint {pretrained} {options}".split())


def test_the_built_in_files_are_for_the_built_in_checkpoint(pretrained, toy_data, tmp_path, monkeypatch):
    shutil.copytree(toy_data / "ner", tmp_path / "data/toyworld/ner")
    shutil.copytree(pretrained, tmp_path / "runs/toyworld")
    monkeypatch.chdir(tmp_path)
    own = toy_data / "ner/train.conll"
    for checkpoint_of_mine in (f"--checkpoint {pretrained}", f"--init {tmp_path}"):
        with pytest.raises(ValueError, match="expected --data DIR or --train FILE"):
            finetune.main(f"ner {checkpoint_of_mine} --test {own}".split())
    finetune.main(f"ner --checkpoint {pretrained} --out own --train {own} {SMALL}".split())
    finetune.main(f"ner --checkpoint runs/toyworld --out default --test {own} {SMALL}".split())
    files = {name: json.loads(Path(name, "results.json").read_text())["data"] for name in ("own", "default")}
    assert list(files["own"]) == ["train"] and list(files["default"]) == ["train", "dev", "test"]
    assert files["default"]["test"]["file"] == "train.conll"


@pytest.mark.parametrize(
    "paths, names",
    [
        (["test.json"], ["test"]),
        (["c/train.json"], ["test"]),
        (["xquad.de.json", "xquad.es.json"], ["xquad.de", "xquad.es"]),
        (["a/test.json", "b/test.json"], ["a", "b"]),
        (["eng.testa", "eng.testb"], ["eng.testa", "eng.testb"]),
        (["c/train.json", "c/dev.json"], ["train.json", "dev.json"]),
        (["x/a/t.json", "x/b/t.json", "y/a/t.json"], None),
    ],
)
def test_files_given_by_name_keep_their_roles(tmp_path, paths, names):
    """Every file is there under a name of its own, and none is taken for the training or the dev file."""
    paths = [tmp_path / path for path in paths]
    found = finetuning.find_files(task_ner, None, {"train": [tmp_path / "mine.conll"], "test": paths})
    assert found["train"] == tmp_path / "mine.conll" and "dev" not in found
    assert [path for name, path in found.items() if name != "train"] == paths
    assert names is None or list(found) == ["train", *names]
    assert all("/" not in name for name in found)


def test_a_file_is_scored_once(tmp_path):
    with pytest.raises(ValueError, match="each file once"):
        finetuning.name_tests([tmp_path / "a/test.json", tmp_path / "a/../a/test.json"])


def test_the_files_of_one_data_set_stay_together(tmp_path):
    """A folder that holds two data sets gives the files of the first one alone."""
    for name in ("eng.train", "eng.testa", "esp.train", "esp.testb"):
        (tmp_path / name).touch()
    assert [path.name for path in finetuning.find_files(task_ner, tmp_path, {}).values()] == ["eng.train", "eng.testa"]


def test_two_processes_train_the_model_of_one(pretrained, toy_data, tmp_path):
    arguments = f"ner --checkpoint {pretrained} --data {toy_data}/ner {SMALL} --dropout 0 --precision fp32 --out"
    processes = "-m torch.distributed.run --nproc_per_node 2 --standalone finetune.py".split()
    command = [sys.executable, *processes, *arguments.split(), str(tmp_path / "two")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("NER F1 on test") == 1
    finetune.main([*arguments.split(), str(tmp_path / "one")])
    one, two = (checkpoint.read(tmp_path / name / "model").weights for name in ("one", "two"))
    assert one.keys() == two.keys()
    start = checkpoint.read(pretrained).weights
    for name, weight in one.items():  # they end as close as a thousandth of the way that training went
        way = weight - start[name] if name in start and start[name].shape == weight.shape else weight
        assert (two[name] - weight).norm() <= 1e-3 * way.norm(), name
    assert not torch.equal(start["luke.words.token.weight"], one["luke.words.token.weight"])


def test_processes_share_a_batch():
    """Whatever their number, all processes together see the same examples in every step."""
    job = finetuning.Job(None, None, None, (), {}, {"train": list(range(7))}, None, "fp32", None)
    model = SimpleNamespace(collate=list)
    recipe = FinetuneConfig(batch=4, micro_batch=2, seed=3)

    whole = finetuning.steps_of(replace(job, rank=Rank(0, 1, None)), model, recipe, 0, 7)
    alone = [sum(step, []) for step in whole]
    assert sorted(sum(alone, [])) == sorted([*range(7)] * 4)  # 7 steps of 4 are 4 epochs of 7
    for world in (2, 4):
        parts = [list(finetuning.steps_of(replace(job, rank=Rank(r, world, None)), model, recipe, 0, 7))
                 for r in range(world)]  # fmt: skip
        assert [sum((sum(part[i], []) for part in parts), []) for i in range(7)] == alone
    one = replace(job, rank=Rank(0, 1, None)), model, replace(recipe, micro_batch=4), 0, 7
    side_by_side = list(finetuning.steps_of(*one, lanes=3))
    assert [sum(step, []) for step in side_by_side] == alone and {len(step) for step in side_by_side} == {2}


def test_prediction_files_are_texts_lines_or_objects(tmp_path):
    made = {"a.txt": "x\n", "b.jsonl": [{"ä": 1}, {}], "c.json": {"ä": 1}}
    task = SimpleNamespace(prediction_files=lambda examples, predictions: made)
    job = finetuning.Job(task, None, None, (), {"dev": []}, {}, None, "fp32", tmp_path)
    finetuning.write_predictions(job, "dev", [])
    found = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert found == {"dev_a.txt": "x\n", "dev_b.jsonl": '{"ä": 1}\n{}\n', "dev_c.json": '{\n "ä": 1\n}'}


def test_the_format_is_described(capsys):
    with pytest.raises(SystemExit, match="0"):
        finetune.main(["ner", "--describe"])
    assert '"spans"' in capsys.readouterr().out


@pytest.mark.parametrize("options", ["", "--select score --epochs 2", "--select loss --epochs 2"])
def test_a_killed_run_ends_with_the_same_bits(run, tmp_path, monkeypatch, capsys, options):
    """Killed after its third step, with a state saved after each; resumed; Ctrl-C after the fourth; resumed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    options = f"--train-examples 40 {options}"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run("ner", whole, options)

    class Killed(BaseException):
        pass

    def ended(model, *arguments, **named):
        for step, sums in original(model, *arguments, **named):
            if step == 4:
                signal.raise_signal(signal.SIGINT)
            yield step, sums
            if step == 3:
                raise Killed

    original = finetuning.trainer.train
    with monkeypatch.context() as patched:
        patched.setattr(finetuning.trainer, "train", ended)
        with pytest.raises(Killed):
            run("ner", killed, f"{options} --save-minutes 0")
        assert list(killed.glob("state/*/step-000003"))
        with pytest.raises(ValueError, match="saved with recipe.batch"):
            run("ner", killed, f"{options} --resume --batch 4")
        with pytest.raises(ValueError, match="saved with precision = fp32, now it is bf16"):
            run("ner", killed, f"{options} --resume --precision bf16")
        with pytest.raises(ValueError, match="saved with data.train = [0-9a-f]{16}, now it is"):
            run("ner", killed, f"{options} --resume --train-examples 39")
        capsys.readouterr()
        with pytest.raises(SystemExit, match="0"):
            run("ner", killed, f"{options} --resume")
    assert list(killed.glob("state/*/step-000004"))
    assert re.search(r"^stopped     after step 4 of \d+, saved in .*/state/.*; --resume", capsys.readouterr().out, re.M)
    run("ner", killed, f"{options} --resume")
    for name in ("results.json", "model/model.safetensors", "test_predictions.txt"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    logs = [[json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()] for out in (whole, killed)]
    whole, killed = [[{k: v for k, v in line.items() if k not in progress.CLOCK} for line in log] for log in logs]
    assert killed == whole and len(whole) > 0


def test_what_makes_two_runs_different(pretrained, toy_data, tmp_path):
    start = inference.open_checkpoint(pretrained, task_ner)
    examples = read_documents(toy_data / "ner/dev.conll")[:8]

    def origin(start=start, train=examples, dev=examples, options=task_ner.Options(), precision="fp32") -> dict:
        rank, found = Rank(0, 1, torch.device("cpu")), {"train": train, "dev": dev}
        job = finetuning.make_job(task_ner, options, start, found, rank, precision, tmp_path, True, 1.0)
        return json.loads(json.dumps(job.origin))

    name = "luke.layers.1.attention.output.bias"
    changed = replace(start, weights=start.weights | {name: start.weights[name] + 1e-3})
    other = [one._replace(spans=tuple((a, b, f"{kind}S") for a, b, kind in one.spans)) for one in examples]
    saved = origin()
    saves.check_same_run(saved, origin(), "saved")
    for setting, now in (
        ("checkpoint", origin(changed)), ("precision", origin(precision="bf16")),
        ("data.train", origin(train=examples[::-1])), ("data.train", origin(train=examples[1:])),
        ("data.dev", origin(dev=examples[::-1])), ("labels", origin(train=other, dev=other)),
        ("options.max_seq_length", origin(options=task_ner.Options(max_seq_length=64))),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^saved with {setting} = .*: give the same options and data$"):
            saves.check_same_run(saved, now, "saved")


@pytest.mark.parametrize("select", ["last", "score"])
def test_a_finished_run_can_be_extended(run, tmp_path, monkeypatch, capsys, select):
    """By epochs that are not better: the best of all stays where dev decides, the last of all where it does not."""
    options = f"--select {select} --train-examples 40"
    run("ner", tmp_path, options)
    model, results = (tmp_path / name for name in ("model/model.safetensors", "results.json"))
    before, scores = model.read_bytes(), json.loads(results.read_text())
    run("ner", tmp_path, f"{options} --resume")  # nothing to add
    assert model.read_bytes() == before and json.loads(results.read_text()) == scores
    capsys.readouterr()
    monkeypatch.setattr(finetuning, "is_better", lambda *given: False)
    run("ner", tmp_path, f"{options} --resume --epochs 2")
    assert re.search(r"the learning rate follows a schedule of \d+ steps from here on", capsys.readouterr().out)
    assert (model.read_bytes() == before) == (select == "score")
    after = json.loads(results.read_text())["results"]["pretrained"]
    assert after["recipe"]["epochs"] == 2
    assert select == "last" or after["scores"] == scores["results"]["pretrained"]["scores"]


def test_a_run_that_ends_meanwhile_is_not_overwritten(run, tmp_path, monkeypatch):
    """Whoever gets the lock looks whether the folder is free."""

    @contextmanager
    def locked(out, rank):
        (tmp_path / "results.json").write_text("another's")
        yield

    monkeypatch.setattr(finetune.distributed, "one_writer", locked)
    with pytest.raises(ValueError, match="holds a run already"):
        run("ner", tmp_path)
    assert (tmp_path / "results.json").read_text() == "another's"


def test_no_run_is_written_into_another(run, pretrained, tmp_path):
    """A folder of train.py is not taken for one of finetune.py, nor the other way round."""
    with pytest.raises(ValueError, match="holds a run already"):
        run("ner", pretrained)
    (tmp_path / "results.json").touch()
    with pytest.raises(ValueError, match="holds a run already"):
        train.main(["--out", str(tmp_path)])
