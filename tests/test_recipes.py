"""Recipes: the published numbers, which files get which, and that --help shows what a run then prints.

    pytest tests/test_recipes.py
"""

import io
import json
import re
import resource
import signal
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from closeness import assert_equal, assert_same
from conftest import shared_data

import finetune
import train
from luke_mini import checkpoint, finetuning, inference, recipes, task_ner, task_qa, task_relation, tasks
from luke_mini.config import SIZES, FinetuneConfig
from luke_mini.distributed import Rank

ROOT = Path(__file__).parent.parent
TASKS = {name: task for name, task in inference.TASKS.items() if task.TRAINS}
SMALL = "--epochs 1 --train-examples 4 --dev-examples 3 --test-examples 3"


@pytest.fixture(scope="module")
def pretrained(toy_data, tmp_path_factory) -> Path:
    """A run of the ordinary stage 2, whose attention has one query, as in the paper."""
    scratch, out = (tmp_path_factory.mktemp(name) for name in ("scratch", "stage2"))
    common = f"--data {toy_data} --steps 2 --global-batch 8 --micro-batch 8 --overwrite"
    train.main(f"{common} --out {scratch}".split())
    train.main(f"{common} --recipe luke-base --stage 2 --init {scratch} --out {out}".split())
    return out


@pytest.fixture(scope="module")
def trained(pretrained, toy_data, tmp_path_factory):
    """Of a task: OUT of a short run, its data, the lines that it printed."""

    @cache
    def of(task: str) -> tuple[Path, Path, list[str]]:
        data, out = toy_data / task / ("choice" if task == "classification" else ""), tmp_path_factory.mktemp(task)
        with redirect_stdout(io.StringIO()) as said:
            finetune.main(f"{task} --checkpoint {pretrained} --data {data} --out {out} {SMALL}".split())
        return out, data, said.getvalue().splitlines()

    return of


# The papers' tables and the published configurations: epochs, batch, learning rate, warm-up, decay, betas, epsilon,
# norm, bias correction, what is kept, seed.
PUBLISHED = """
conll2003            5   8  1e-5   0.06 0.01 0.9 0.98  1e-6 0 no  last  35
conll-multilingual   5   8  1e-5   0.06 0.01 0.9 0.999 1e-8 5 yes score  0
tacred               5  32  1e-5   0.06 0.01 0.9 0.98  1e-6 0 no  score 42
kbp37                5  32  1e-5   0.06 0.01 0.9 0.999 1e-8 0 yes score  0
open-entity          3   4  1e-5   0.06 0.01 0.9 0.98  1e-6 0 no  score 12
squad                2  48  1.5e-5 0.06 0.01 0.9 0.98  1e-6 0 no  last  14
xquad                2  32  2e-5   0.06 0.01 0.9 0.999 1e-8 5 yes loss   0
record               2  32  1e-5   0.06 0.01 0.9 0.98  1e-6 0 no  score  4
aida                 2  16  2e-5   0.1  0.01 0.9 0.999 1e-6 1 no  last   0
jsquad               4  32  3e-5   0.1  0    0.9 0.999 1e-8 1 yes score 42
marc-ja              4  32  3e-5   0.1  0    0.9 0.999 1e-8 1 yes score 42
jsts                 4  32  3e-5   0.1  0    0.9 0.999 1e-8 1 yes score 42
jnli                 4  32  3e-5   0.1  0    0.9 0.999 1e-8 1 yes score 42
jcommonsenseqa       4  64  3e-5   0.1  0    0.9 0.999 1e-8 1 yes score 42
"""
OPTIONS = {
    "conll2003": {"max_seq_length": 512, "max_mention": 16, "max_candidates": 128, "space_before_all": False},
    "conll-multilingual": {"max_seq_length": 512, "max_mention": 16, "space_before_all": True},
    "tacred": {"classifier_bias": False, "max_mention": 30},
    "kbp37": {"classifier_bias": True, "max_mention": 512},
    "squad": {"max_seq_length": 512, "max_query_length": 64, "doc_stride": 128, "overlap": 0, "max_answer": 30, "ignore_case": True},
    "xquad": {"max_seq_length": 384, "overlap": 128, "ignore_case": False},
    "record": {"max_seq_length": 512, "max_query_length": 90, "doc_stride": 128},
    "aida": {"split": "simple", "scored_split": "per_mention", "max_candidates": 30, "mask_share": 0.9},
    "jsquad": {"max_seq_length": 384, "doc_stride": 128, "overlap": 0},
    "marc-ja": {"max_seq_length": 512},
    "jsts": {"max_seq_length": 128},
    "jnli": {"max_seq_length": 128},
    "jcommonsenseqa": {"max_seq_length": 64},
}


def test_the_published_numbers():
    rows = [line.split() for line in PUBLISHED.strip().splitlines()]
    assert {name for name, *_ in rows} == set(recipes.RECIPES)
    for name, *numbers, corrected, select, seed in rows:
        t = recipes.for_encoder(recipes.RECIPES[name], SIZES["base"]).training
        found = (t.epochs, t.batch, t.learning_rate, t.warmup_ratio, t.weight_decay, t.beta1, t.beta2, t.eps)
        assert (*found, t.max_grad_norm) == tuple(map(float, numbers)), name
        assert (t.bias_correction, t.select, t.seed) == (corrected == "yes", select, int(seed)), name
        assert t.batch % t.micro_batch == 0 and t.dropout == 0.1


@pytest.mark.parametrize("name", OPTIONS)
def test_the_published_options(name):
    recipe = recipes.RECIPES[name]
    options = inference.TASKS[recipe.task].Options(**recipe.options)
    assert {key: getattr(options, key) for key in OPTIONS[name]} == OPTIONS[name]


def test_large_encoders_take_the_published_recipe_and_small_ones_larger_steps():
    for recipe in recipes.RECIPES.values():
        found = {size: recipes.for_encoder(recipe, shape).training for size, shape in SIZES.items()}
        published, tiny = recipe.training, found["tiny"]
        assert found["base"] == found["large"] == published
        assert tiny.learning_rate > published.learning_rate and tiny.batch == published.batch


# --- Which recipe -----------------------------------------------------------------------------------------------------

BYTE_LEVEL = SimpleNamespace(tokenizer=None, settings={})


def test_ner_files_tell(tiny_checkpoint):
    def chosen(*names: str, start=BYTE_LEVEL) -> str:
        return task_ner.recipe_name({name: Path(name) for name in names}, {}, start)

    assert chosen("eng.train", "eng.testa") == chosen("train.conll") == "conll2003"
    assert chosen("esp.train") == chosen("eng.train", "ned.testb") == chosen("deu.testa.bio") == "conll-multilingual"
    assert chosen("eng.train", start=checkpoint.read(tiny_checkpoint)) == "conll2003"


def test_question_answering_is_told_by_what_is_scored():
    def chosen(*names: str) -> str:
        metrics = {name: task_qa.data_set(Path(name), task_qa.Options(), False)[0] for name in names}
        examples = {name: [SimpleNamespace(metric=metric)] for name, metric in metrics.items()}
        return task_qa.recipe_name({name: Path(name) for name in names}, examples, None)

    assert chosen("train-v1.1.json", "dev-v1.1.json") == chosen("train.jsonl") == "squad"
    assert chosen("train-v1.1.json", "xquad.en.json") == chosen("train-v1.1.json", "xquad.de.json") == "xquad"
    assert chosen("train-v1.1.json", "test-context-de-question-en.json") == "xquad"
    assert chosen("jsquad-v1.3/train-v1.3.json", "jsquad-v1.3/valid-v1.3.json") == "jsquad"


def test_relations_of_kbp37():
    def chosen(*labels: str) -> str:
        examples = [task_relation.Example("", "", (0, 1), (2, 3), label) for label in labels]
        return task_relation.recipe_name({}, {"train": examples}, None)

    assert chosen("no_relation", "per:title(e1,e2)") == "kbp37"
    assert chosen("no_relation", "per:title") == chosen("knows(e1,e2)") == "tacred"


def test_real_files_get_their_recipe(tiny_checkpoint):
    start = checkpoint.read(tiny_checkpoint)
    wanted = {
        "relation/KBP37_dev.txt": ("relation", "kbp37"), "relation/tacred_sample_train.json": ("relation", "tacred"),
        "jglue/jsts-valid.json": ("classification", "jsts"), "jglue/jnli-valid.json": ("classification", "jnli"),
        "jglue/jcommonsenseqa-valid.json": ("classification", "jcommonsenseqa"),
        "jglue/jsquad-valid.json": ("qa", "jsquad"), "qa/xquad.de.json": ("qa", "xquad"),
        "ner/eng.train": ("ner", "conll2003"), "ner/ned.testa": ("ner", "conll-multilingual"),
    }  # fmt: skip
    for path, (task, name) in wanted.items():
        module, path = inference.TASKS[task], shared_data(path)
        examples = {"train": finetuning.read_examples(module, path, module.Options())}
        assert module.recipe_name({"train": path}, examples, start) == name, path


# --- What a run says --------------------------------------------------------------------------------------------------


def help_of(task: str, capsys) -> str:
    with pytest.raises(SystemExit):
        finetune.main([task, "--help"])
    return capsys.readouterr().out


def is_default(setting: str, text: str) -> bool:
    """Whether --help shows it: an entry begins with the flag, two blanks in, and ends with the default in brackets."""
    entries = (" ".join(entry.split("\n\n")[0].split()) for entry in text.split("recipes, chosen")[0].split("\n  --"))
    shown = {f"--{entry.split()[0].strip(',')}": entry.rpartition("[")[2].split("]")[0] for entry in entries}
    flag, _, value = setting.partition(" ")
    value = value or ("off" if flag.startswith("--no-") else "on")
    return shown[flag.replace("--no-", "--")] == value


@pytest.mark.parametrize("task", [*inference.TASKS, "link"])
def test_help_says_nothing_empty(task, capsys):
    text = help_of(task, capsys)
    assert "None" not in text and "[]" not in text and "default:" not in text


@pytest.mark.parametrize("task", TASKS)
def test_help_shows_the_default_recipe(task, capsys):
    text = help_of(task, capsys)
    default, *_ = recipes.of_task(task).values()
    for setting in recipes.settings(default.training) + recipes.settings(TASKS[task].Options(**default.options)):
        assert is_default(setting, text), setting
    for name in ("--head", "--select", "--order", "--metric"):
        for choices in re.findall(rf"{name} \{{(.*?)\}}", text):
            assert "," in choices


@pytest.mark.parametrize("task", TASKS)
def test_help_shows_what_a_run_prints(task, trained, capsys):
    """Every number of the run's header is the default's in --help, or stands in its line of this recipe or size."""
    text = help_of(task, capsys)
    header = {line.split()[0]: line for line in trained(task)[2] if line.strip()}
    printed = re.findall(r"--[^ ]+(?: [^ -][^ ]*)?", header["training"] + "  " + header["options"])
    assert len(printed) > 14
    name = header["recipe"].split()[1].removesuffix(":")
    tail = text.split("recipes, chosen by the files:")[1].splitlines()
    of_recipe = [tail[i + 1] for i, line in enumerate(tail) if name in line and ("up to" not in line or "256" in line)]
    stated = "".join(f"{line}  " for line in of_recipe)
    for setting in printed:
        if not setting.startswith("--epochs "):  # given above
            assert f"{setting}  " in stated or is_default(setting, text), setting


# --- Entity-aware attention enters at fine-tuning ---------------------------------------------------------------------


def test_finetuning_makes_attention_entity_aware(pretrained, trained):
    ordinary, (out, _, said) = checkpoint.read(pretrained), trained("ner")
    assert not ordinary.config.use_entity_aware_attention
    assert [line for line in said if line.startswith("attention   entity-aware, four query matrices: w2e, e2w, e2e s")]
    assert json.loads((out / "model/config.json").read_text())["use_entity_aware_attention"]
    weights, size = checkpoint.read(out / "model").weights, ordinary.config.hidden_size
    query, of_entities = (weights[f"luke.layers.0.attention.{kind}.weight"] for kind in ("w2w_w2e", "e2w_e2e"))
    assert query.shape == of_entities.shape == (2 * size, size)
    assert not torch.equal(query[:size], query[size:])  # they have been trained, each by itself


def test_entity_aware_attention_starts_as_the_ordinary_one(pretrained, toy_data):
    """At step 0 both give the same scores, and so does the way back."""
    start = checkpoint.read(pretrained)
    documents = finetuning.read_examples(task_ner, toy_data / "ner/dev.conll", task_ner.Options())[:2]
    labels = task_ner.label_list(documents)
    features = task_ner.make_features(documents, start.tokenizer, start.entity_vocab, labels)[:6]

    def scores(found: checkpoint.Checkpoint) -> torch.Tensor:
        job = finetuning.Job(
            task_ner, task_ner.Options(), found, labels, {}, {}, Rank(0, 1, torch.device("cpu")), "", None
        )
        model = finetuning.build(job, FinetuneConfig(), random_weights=False)
        with torch.inference_mode():
            return model.double().eval().logits(model.collate(features))

    aware = checkpoint.with_attention(start, True)
    assert aware.config.use_entity_aware_attention and len(aware.weights) > len(start.weights)
    assert_same(scores(aware), scores(start))
    again = checkpoint.with_attention(aware, False)
    assert again.config == start.config
    assert_equal(again.weights, start.weights)


@pytest.mark.parametrize("task, options, aware", [
    ("relation", "", True), ("relation", "--recipe kbp37", False), ("relation", "--recipe kbp37 --entity-aware", True),
    ("typing", "--no-entity-aware", False), ("disambiguation", "", False), ("classification", "", True),
])  # fmt: skip
def test_who_becomes_entity_aware(pretrained, toy_data, trained, tmp_path, task, options, aware):
    out = tmp_path if options else trained(task)[0]
    if options:
        call = f"{task} --checkpoint {pretrained} --data {toy_data}/{task} --out {out} {SMALL} {options}"
        finetune.main(call.split())
    assert checkpoint.read(out / "model").config.use_entity_aware_attention == aware


# --- Scoring without training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_evaluating_gives_the_score_of_the_training(task, trained, tmp_path, capsys):
    """Bit for bit: the same scores and prediction files, and nothing of the model has changed."""
    out, data, said = trained(task)
    before = (out / "model/model.safetensors").read_bytes()
    test = finetuning.find_files(inference.TASKS[task], data, {})["test"]
    finetune.main(f"{task} --checkpoint {out} --evaluate {test} --test-examples 3 --out {tmp_path}".split())
    assert capsys.readouterr().out.splitlines()[-1] == said[-1]
    results = [json.loads((folder / "results.json").read_text()) for folder in (out, tmp_path)]
    scores = [next(iter(made["results"].values()))["scores"]["test"] for made in results]
    assert list(scores[0].values()) == list(scores[1].values())
    assert results[0]["data"]["test"] == results[1]["data"]["test"]
    first, second = ({path.name: path.read_bytes() for path in f.glob("test_*")} for f in (out, tmp_path))
    assert first and first == second
    assert (out / "model/model.safetensors").read_bytes() == before


def test_two_processes_score_like_one(trained, tmp_path):
    out, data, _ = trained("ner")
    call = f"ner --checkpoint {out} --evaluate {data}/test.conll --test-examples 3 --out"
    finetune.main([*call.split(), f"{tmp_path}/one"])
    processes = [sys.executable, *"-m torch.distributed.run --nproc_per_node 2 --standalone finetune.py".split()]
    done = subprocess.run(
        [*processes, *call.split(), f"{tmp_path}/two"], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0 and done.stdout.count("NER F1 on test") == 1, done.stderr[-2000:]
    for name in ("results.json", "test_predictions.txt"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


@pytest.mark.parametrize("size", [0, 300, 1000])
def test_a_full_disk_keeps_the_older_evaluation(trained, tmp_path, monkeypatch, size):
    """A limit on the size of files stands in for the full disk."""
    out, data, _ = trained("ner")
    call = f"ner --checkpoint {out} --evaluate {data}/test.conll --out {tmp_path} --test-examples"
    finetune.main([*call.split(), "20"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert min(map(len, before.values())) > size
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        with redirect_stdout(io.StringIO()), pytest.raises(OSError, match=f"File too large: '{tmp_path}/[rt]e"):
            finetune.main([*call.split(), "30"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    finetune.main([*call.split(), "30"])
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys() and all(after[name] != before[name] for name in before)


def test_several_files_are_scored_by_their_names(trained, tmp_path):
    """One model, many languages: each file has a score of its own."""
    out, data, _ = trained("ner")
    for language in "ab":
        (tmp_path / language).mkdir()
        (tmp_path / language / "train.conll").write_bytes((data / "dev.conll").read_bytes())
    files = f"{tmp_path}/a/train.conll {tmp_path}/b/train.conll"
    finetune.main(f"ner --checkpoint {out} --evaluate {files} --out {tmp_path}/out --test-examples 2".split())
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert list(results["results"]["evaluated"]["scores"]) == list(results["data"]) == ["a", "b"]
    names = sorted(path.name for path in (tmp_path / "out").glob("*_predictions.txt"))
    assert names == ["a_predictions.txt", "b_predictions.txt"]


@pytest.mark.parametrize("task", ["disambiguation", "mlama"])
def test_a_pretrained_checkpoint_is_scored_without_training(task, pretrained, toy_data, tmp_path):
    file = toy_data / ("disambiguation/test/test.xml" if task == "disambiguation" else "mlama/en")
    finetune.main(f"{task} --checkpoint {pretrained} --evaluate {file} --out {tmp_path} --test-examples 3".split())
    (scores,) = json.loads((tmp_path / "results.json").read_text())["results"]["evaluated"]["scores"]["test"].values()
    assert 0 <= scores[inference.TASKS[task].SCORES[-1]] <= 1


def test_a_pretrained_checkpoint_has_no_score_for_other_tasks(pretrained, toy_data, tmp_path):
    with pytest.raises(ValueError, match="not fine-tuned for typing"):
        call = f"typing --checkpoint {pretrained} --evaluate {toy_data}/typing/test.json --out {tmp_path}"
        finetune.main(call.split())


def test_a_finetuned_checkpoint_keeps_its_head_for_the_same_labels(trained, tmp_path):
    """Trained on with a rate of 0, its scores are those from before; for other labels the head is new."""
    first, data, _ = trained("typing")
    call = f"typing --checkpoint {first} --data {data} {SMALL}"
    finetune.main(f"{call} --out {tmp_path}/second --learning-rate 0".split())
    finetune.main(f"{call} --out {tmp_path}/other --train-examples 9".split())
    paths = (first, tmp_path / "second", tmp_path / "other")
    first, second, other = (checkpoint.read(path / "model").weights for path in paths)
    assert_equal(second, first)
    assert other["classifier.weight"].shape != first["classifier.weight"].shape


# --- Choosing by loss -------------------------------------------------------------------------------------------------


def test_the_loss_of_a_file_is_the_mean_over_its_predictions(pretrained, toy_data):
    """Whatever the size of its batches; and as many candidates as there are, each with its cross-entropy."""
    start = checkpoint.with_attention(checkpoint.read(pretrained), True)
    documents = finetuning.read_examples(task_ner, toy_data / "ner/dev.conll", task_ner.Options())[:2]
    labels = task_ner.label_list(documents)
    features = task_ner.make_features(documents, start.tokenizer, start.entity_vocab, labels)
    model = task_ner.build_model(start.config, start.entity_vocab, labels)
    finetuning.initialize(model, start.config, 1)
    rank = Rank(0, 1, torch.device("cpu"))
    job = finetuning.Job(task_ner, None, start, labels, {}, {"dev": features}, rank, "fp32", None)
    with torch.no_grad():
        model.eval()
        batch = model.collate(features)
        wanted = torch.nn.functional.cross_entropy(model.logits(batch), batch.labels).item()
    for size in (1, 3, len(features)):
        found = finetuning.mean_loss(job, model, "dev", FinetuneConfig(micro_batch=size))
        assert found == pytest.approx(wanted, rel=1e-4)


def test_the_epoch_with_the_least_loss_is_kept():
    found = [{"f1": 0.3, "loss": 2.0}, {"f1": 0.2, "loss": 1.0}, {"f1": 0.9, "loss": 1.5}]
    assert [finetuning.is_better(one, found[1], "f1") for one in found] == [False, False, False]
    assert finetuning.is_better(found[1], found[0], "f1") and not finetuning.is_better(found[2], found[1], "f1")
    scores = [{"f1": 0.3}, {"f1": 0.2}]
    assert finetuning.is_better(scores[0], scores[1], "f1") and not finetuning.is_better(scores[1], scores[0], "f1")


def test_smaller_encoders_are_named_with_all_recipes():
    """Each recipe of a task is in its overview, alone and for each size."""
    for name in TASKS:
        lines = list(recipes.overview(tasks.TASKS[name]))
        words = Counter(re.findall(r"[\w-]+", " ".join(line for line in lines if not line.startswith("      "))))
        for recipe in recipes.of_task(name):
            assert words[recipe] >= 1 + len(recipes.SMALLER)


def test_flags_change_the_recipe():
    arguments = finetune.parse_arguments("ner --recipe conll-multilingual --epochs 3".split())
    start = SimpleNamespace(config=SIZES["base"])
    name, recipe = finetune.choose_recipe(task_ner, arguments, {}, {}, start)
    assert name == "conll-multilingual"
    assert recipe.training == replace(recipes.RECIPES[name].training, epochs=3.0)
