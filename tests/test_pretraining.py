"""Pretraining: the recipes' numbers, what a stage trains, validation, what a run costs, its page.

    pytest tests/test_pretraining.py
"""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from closeness import seeded
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

import train
from luke_mini import batching, checkpoint, config, cost, distributed, examples, ops, optim, pretraining
from luke_mini import recipes, report, tokenizer
from luke_mini.entity_vocab import EntityVocab
from luke_mini.initialization import initialize
from luke_mini.model import LukeForPretraining

CPU = distributed.Rank(0, 1, torch.device("cpu"))


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
    monkeypatch.setattr(cost, "SIDE", 128)


# --- Recipes ----------------------------------------------------------------------------------------------------------

# The papers, the released configurations and the original scripts, written down anew: steps as published, epochs,
# batch, peak rate, warm-up, decay, betas, epsilon, norm (10000 there is off), shares of words and entities predicted,
# shares of these words that become random or stay, whole words, trained words.
SOURCES = """
luke-base   1  98168 20 2048 5e-4 2500 0.01 0.9 0.999 1e-6 0 0.15 0.15 0.1 0.1 whole   no
luke-base   2  98168 20 2048 1e-5 2500 0.01 0.9 0.999 1e-6 0 0.15 0.15 0.1 0.1 whole   yes
luke-large  1  98168 20 2048 5e-4 2500 0.01 0.9 0.999 1e-6 0 0.15 0.15 0.1 0.1 whole   no
luke-large  2  98168 20 2048 1e-5 2500 0.01 0.9 0.999 1e-6 0 0.15 0.15 0.1 0.1 whole   yes
mluke-base  1 540326 20 2048 5e-4 2500 0.01 0.9 0.999 1e-6 0 0.15 0.15 0.1 0.1 subword no
mluke-base  2 540326 20 2048 1e-4 2500 0.01 0.9 0.999 1e-6 0 0.15 0.15 0.1 0.1 subword yes
mluke-large 1 540326 20 2048 5e-4 2500 0.01 0.9 0.999 1e-6 0 0.15 0.15 0.1 0.1 subword no
mluke-large 2 540326 20 2048 5e-5 2500 0.01 0.9 0.999 1e-6 0 0.15 0.15 0.1 0.1 subword yes
global-ed   1   4866  1 2048 5e-4 1000 0.01 0.9 0.999 1e-6 1 0    0.3  0.1 0.1 whole   no
global-ed   2  29196  6 2048 5e-5 1000 0.01 0.9 0.999 1e-6 1 0    0.3  0.1 0.1 whole   yes
"""
FLAGS = ("--epochs --global-batch --learning-rate --warmup-steps --weight-decay --beta1 --beta2 --eps --max-grad-norm "
         "--masked-word-prob --masked-entity-prob --random-word-prob --unmasked-word-prob").split()  # fmt: skip
STANDS = {"configuration": "--global-batch --learning-rate --warmup-steps --weight-decay --beta1 --beta2 --eps "
                           "--max-grad-norm",
          "script": "--epochs --masked-word-prob --masked-entity-prob --random-word-prob --unmasked-word-prob "
                    "--random-entity-prob --unmasked-entity-prob --sampling-exponent",
          "paper": "--dropout"}  # fmt: skip


def printed(arguments, data: Path, capsys) -> dict[str, str]:
    """What a dry run prints: the first word of each line -> the rest; continued lines by their own first word."""
    capsys.readouterr()
    train.main([*map(str, arguments), "--data", str(data), "--dry-run"])
    lines = (line.strip().partition(" ") for line in capsys.readouterr().out.splitlines())
    return {name.rstrip(":"): rest.strip() for name, _, rest in lines}


@pytest.mark.parametrize("row", SOURCES.strip().splitlines())
def test_a_run_prints_the_published_numbers_where_they_stand(row, toy_data, tmp_path, tiny_words, capsys):
    name, stage, steps, *numbers, masking_of, words = row.split()
    said = printed(["--recipe", name, "--stage", stage, "--init", tiny_words], toy_data, capsys)
    assert f"(published: {int(steps):,} steps)" in said["training"]
    flags = dict(re.findall(r"(--\S+) ([-\de.]+)", "  ".join(said[source] for source in STANDS)))
    assert {flag: float(flags[flag]) for flag in FLAGS} == dict(zip(FLAGS, map(float, numbers)))
    for source, expected in STANDS.items():
        assert set(expected.split()) <= set(said[source].split()), source
    switches = said["script"].split()
    assert ("--whole-word-masking" in switches) == (masking_of == "whole")
    assert ("--train-words" in switches) == (words == "yes")
    assert {"--no-words-only", "--no-freeze-entities", "--entity-bias", "--no-predict-page"} <= set(switches)
    assert "--no-entity-aware" in said["paper"] and "command" in said and "line" not in said
    data = {"mluke": "--drop-unknown-links", "globa": "--entities-only"}.get(name[:5], "")
    assert data in said["recipe"] and f"stage {stage} of 2" in said["recipe"]


def test_what_the_command_line_gives_is_said(toy_data, capsys):
    said = printed(["--learning-rate", "1e-3", "--seed", "3"], toy_data, capsys)
    assert said["command"].startswith("line: ") and said["command"].endswith("--learning-rate 0.001  --seed 3")
    assert "--beta2 0.98" in said["ours"] and "--beta1 0.9" in said["configuration"]


def test_recipes_of_sizes():
    for name, recipe in recipes.PRETRAINING.items():
        size = name.removeprefix("scratch-").partition("-")[2] or name.partition("-")[2]
        assert recipe.size == ("base" if name == "global-ed" else size)
        assert len(recipe.stages) == (1 if name.startswith("scratch") else 2)
    assert recipes.PRETRAINING["global-ed"].entity_size == 768


@pytest.mark.parametrize("name", recipes.PRETRAINING)
def test_learning_rates_follow_the_closed_form(name):
    """Linear to the peak, then linear to 0, as published: differs in that the first step has a rate, not 0."""
    recipe = recipes.PRETRAINING[name]
    for training, steps in zip(recipe.stages, recipe.steps):
        total, warm, peak = steps or 50_000, training.warmup_steps, training.learning_rate
        for step in (0, 1, warm // 2, warm - 1, warm, warm + 1, total // 2, total - 1):
            expected = peak * (step + 1) / warm if step < warm else peak * (total - step) / (total - warm)
            assert optim.linear_schedule(step, total, warm, peak) == pytest.approx(expected, rel=1e-12)
        assert max(optim.linear_schedule(step, total, warm, peak) for step in range(total)) == peak


@pytest.fixture(scope="module")
def tiny_words(toy_data, tmp_path_factory) -> Path:
    """A word model of an odd shape, with the data's tokenizer."""
    from test_initialization import words_with_tokenizer

    folder = tmp_path_factory.mktemp("word-model") / "words"
    words_with_tokenizer(folder, tokenizer.load(toy_data / "tokenizer"))
    return folder


def test_a_model_of_another_size_is_refused(toy_data, tiny_words, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining.initialization, "word_model_shape",
                        lambda folder: {"hidden_size": 1024, "num_hidden_layers": 24})  # fmt: skip
    arguments = train.parse_arguments(f"--recipe mluke-base --stage 1 --init {tiny_words}".split())
    with pytest.raises(ValueError, match="has 24 layers of 1024: expected --recipe mluke-large"):
        pretraining.base_shape(arguments)
    arguments = train.parse_arguments(f"--recipe mluke-large --stage 1 --init {tiny_words}".split())
    assert pretraining.base_shape(arguments).entity_emb_size == 256


SMALL = "--steps 3 --warmup-steps 1 --global-batch 4 --micro-batch 2 --log-every 1"


def run(data: Path, out: Path, *options: str) -> dict[str, torch.Tensor]:
    train.main(f"--data {data} --out {out} {SMALL} {' '.join(options)}".split())
    return checkpoint.read(out).weights


def test_stage_1_leaves_every_word_side_weight_alone(toy_data, tiny_words, tmp_path):
    """Bit by bit, but for the rows of <ent> and <ent2>, which the last step makes for downstream tasks, as LUKE's
    export.
    --freeze-entities and --no-entity-bias leave what they name."""
    words = load_file(tiny_words / "model.safetensors")
    options = f"--recipe luke-base --stage 1 --init {tiny_words}"
    run(toy_data, tmp_path / "1", options)
    found = load_file(tmp_path / "1/step-000003/model.safetensors")
    markers = tokenizer.load(toy_data / "tokenizer")
    rows = [i for i in range(len(markers)) if i not in (markers.ent_id, markers.ent2_id)]
    for name, tensor in words.items():
        ours = found[name.replace("roberta.", "luke.")]
        tables = "word_embeddings.weight" in name or name in ("lm_head.bias", "lm_head.decoder.bias")
        assert torch.equal(ours[rows], tensor[rows]) if tables else torch.equal(ours, tensor), name
    changed = {name for name in found if "entity" in name}
    assert any("entity_embeddings.entity_embeddings" in name for name in changed)
    assert found["entity_predictions.bias"].any()
    start = run(toy_data, tmp_path / "0", options, "--learning-rate 0 --weight-decay 0")
    table, bias = "luke.entities.entity.weight", "entity_head.bias"
    frozen = run(toy_data, tmp_path / "2", options, "--freeze-entities --no-entity-bias")
    assert torch.equal(frozen[table], start[table]) and not frozen[bias].any()
    assert not torch.equal(frozen["luke.entities.projection.weight"], start["luke.entities.projection.weight"])


# --- Costs ------------------------------------------------------------------------------------------------------------


def made(toy_data, **changes):
    """Training, model, tokenizer, entities and the batch of a first step, of the recipe luke-base 2 with changes."""
    training = replace(recipes.published("luke 2"), global_batch=6, micro_batch=6, dropout=0.0, **changes)
    words, entities = tokenizer.load(toy_data / "tokenizer"), EntityVocab.load(toy_data / "entity_vocab.jsonl")
    shape = pretraining.adapt_shape(replace(config.TINY, num_hidden_layers=2), training, words, entities)
    model = LukeForPretraining(shape)
    initialize(model, shape, seeded())
    optim.select_trainable(model, training)
    shards = examples.Shards.open(toy_data)
    [[batch]] = batching.training_steps(shards, words, entities, training, CPU, 0, 1)
    return training, model, words, entities, batch


@pytest.mark.parametrize("changes", [
    {}, {"entity_aware": True}, {"train_words": False}, {"freeze_entities": True}, {"predict_page": True},
    {"words_only": True}, {"masked_word_prob": 0.0}, {"train_words": False, "freeze_entities": True},
])  # fmt: skip
def test_operations_in_closed_form_are_those_that_torch_counts(toy_data, changes, monkeypatch):
    """Of the plain form: every product of the equations, forward and backward, and nothing else."""
    _, model, _, _, batch = made(toy_data, **changes)

    def attention(queries, key_value, batch, dropout):
        return ops.entity_attention_equations(queries[:, 0], queries[:, -1], *key_value.unbind(1), batch)

    plain = {"entity_attention": attention, "linear_cross_entropy": ops.full_cross_entropy, "linear": F.linear}
    for name, function in plain.items():
        monkeypatch.setattr(ops, name, function)
    model.train()
    with FlopCounterMode(display=False) as counter:
        sum(loss for loss, _ in model(batch).values()).backward()
    assert cost.step_flops(model, batch) == counter.get_total_flops() > 1e8


def test_memory_and_rate(monkeypatch):
    """A product of two matrices takes as long as the rate says; weights, gradients and moments are counted."""
    rate = cost.peak_rate(torch.device("cpu"), "fp32")
    assert 1e8 < rate < 1e15
    monkeypatch.setattr(cost, "PATIENCE", 0)  # where products take long there is one, a small one
    with FlopCounterMode(display=False) as counter:
        cost.peak_rate(torch.device("cpu"), "fp32")
    assert counter.get_total_flops() == 2 * (cost.SIDE // 2) ** 3
    with torch.device("meta"):
        model = LukeForPretraining(replace(config.LUKE_BASE, entity_vocab_size=1000))
    weights = sum(p.numel() for p in model.parameters())
    full, empty = cost.memory(model, 2048), cost.memory(model, 0)
    assert cost.memory(model, 2048, recompute=True) - empty == (full - empty) * (cost.HELD + 12) / (12 * cost.HELD)
    model.requires_grad_(False)
    assert empty == 16 * weights and cost.memory(model, 0) == 4 * weights and full > empty


def test_a_dry_run_writes_nothing_and_says_what_the_run_takes(toy_data, tmp_path, capsys):
    out = tmp_path / "run"
    options = "--steps 50 --global-batch 8 --micro-batch 4 --price 36000".split()  # 10 a second
    said = printed(["--out", out, *options], toy_data, capsys)
    assert not out.exists() and re.match(r"about \d+ s, for [\d,.]+ on this machine", said["time"])
    assert {"command", "device", "model", "training", "tokens", "work", "memory", "time"} <= said.keys()
    assert said["training"].startswith("50 steps of 8 examples")
    tokens, flop = (float(re.match(r"[\d.e+]+", said[name])[0]) for name in ("tokens", "work"))
    train.main(["--data", str(toy_data), "--out", str(out), *options])
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] - before for line, before in zip(lines, [0, *(line["seconds"] for line in lines)])]
    total = sum(line["flop_per_second"] * time for line, time in zip(lines, seconds))
    assert 0.7 < flop / total < 1.4 and tokens > 1
    out = capsys.readouterr().out
    said = re.search(r"estimate    30 steps to go in \d+ s \(([\d.]+) s a step\), for ([\d.]+)", out)
    assert float(said[2]) == pytest.approx(30 * float(said[1]) * 10, rel=0.01)


# --- Validation -------------------------------------------------------------------------------------------------------


def test_held_out_scores_are_those_of_plain_pytorch(toy_data):
    """The mean over all predictions of all batches, in eval mode; the model without entities sees only [MASK]."""
    training, model, words, entities, _ = made(toy_data, entity_aware=True)
    rules = batching.batch_rules(words, entities, training)
    batches = pretraining.hold_out([toy_data], words, entities, rules, 5)
    assert 3 < len(batches) <= pretraining.HELD_OUT_EXAMPLES / 5 + 1
    validation = pretraining.Validation(model.train(), batches, words, entities)
    found = validation.measure(whole=True)
    assert model.training
    for hidden, ending in ((False, ""), (True, "_from_words_alone")):
        scores, labels = [], []
        for batch in batches:
            packed = batch.packed
            if hidden:
                packed = replace(packed, entity_ids=torch.full_like(packed.entity_ids, entities.mask_id))
            states = model.luke(packed)[packed.n_words + batch.masked_entity_rows]
            scores.append(model.entity_head(states, model.luke.entities.entity.weight).detach())
            labels.append(batch.masked_entity_labels)
        scores, labels = torch.cat(scores), torch.cat(labels)
        assert found[f"held_out_entity_loss{ending}"] == pytest.approx(F.cross_entropy(scores, labels).item(), rel=1e-5)
        hits = (scores.argmax(1) == labels).double().mean()
        assert found[f"held_out_entity_accuracy{ending}"] == pytest.approx(float(hits))
    assert found["held_out_entity_accuracy_of_a_constant"] == float(labels.bincount().max()) / len(labels)
    assert "held_out_word_loss" in found and set(validation.measure(whole=False)) < set(found)


def test_held_out_pages_are_not_those_of_training(toy_data):
    training, _, words, entities, _ = made(toy_data)
    rules = batching.batch_rules(words, entities, training)
    trained = examples.Shards.open(toy_data)
    texts = {tuple(trained.gather([i]).word_ids.tolist()) for i in range(len(trained))}
    words_alone, entities_alone = replace(rules.words, probability=0.0), replace(rules.entities, probability=0.0)
    unmasked = replace(rules, words=words_alone, entities=entities_alone)
    for batch in pretraining.hold_out([toy_data], words, entities, unmasked, 1):
        assert tuple(batch.packed.word_ids[1:-1].tolist()) not in texts


def test_guesses_are_about_the_mention_that_is_shown(toy_data):
    """The text around it as the model sees it; a model whose head knows one entity guesses that."""
    training, model, words, entities, _ = made(toy_data, entity_aware=True)
    favorite = 5
    with torch.no_grad():
        model.entity_head.bias[favorite] = 50.0
    rules = batching.batch_rules(words, entities, training)
    rules = replace(rules, words=replace(rules.words, probability=0.0))
    batches = pretraining.hold_out([toy_data], words, entities, rules, 8)
    validation = pretraining.Validation(model, batches, words, entities)
    validation.measure(whole=False)
    lines = [json.loads(line) for line in (toy_data / "held_out_links.jsonl").read_text().splitlines()]
    names = {(span["title"], line["text"][span["start"] : span["end"]]) for line in lines for span in line["spans"]}
    assert 3 < len(validation.guesses) <= pretraining.SHOWN
    for guess in validation.guesses:
        assert guess.guesses[0] == (entities.title(favorite), pytest.approx(1.0)) and len(guess.guesses) == 5
        assert guess.title == "[UNK]" or (guess.title, guess.mention.strip()) in names


def test_data_without_held_out_pages(toy_data, tmp_path):
    training, model, words, entities, _ = made(toy_data)
    (tmp_path / "manifest.json").write_text((toy_data / "manifest.json").read_text())
    rules = batching.batch_rules(words, entities, training)
    assert pretraining.hold_out([tmp_path], words, entities, rules, 5) == []
    assert pretraining.Validation(model, [], words, entities).measure(whole=True) == {}


# --- Switches of the original -----------------------------------------------------------------------------------------


def test_the_page_is_predicted_from_the_first_token(toy_data, tmp_path):
    """The mean over sequences and features of the squared difference; the head is saved under the original's name."""
    _, model, _, _, batch = made(toy_data, predict_page=True)
    loss, hits = model(batch)["page"]
    assert len(batch.page_rows) > 1 and hits == 0
    states = model.luke(batch.packed)[batch.page_rows]
    expected = F.mse_loss(model.page_head(states), model.luke.entities.entity.weight[batch.page_labels])
    assert (loss / batch.counts["page"]).item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    rows = model.luke.entities.entity.weight.grad.abs().sum(1)
    assert model.page_head.bias.grad.any() and rows[batch.page_labels].gt(0).all()  # not detached, as in LUKE
    found = run(toy_data, tmp_path / "1", "--predict-page")
    assert {"page_head.weight", "page_head.bias"} <= found.keys()
    names = load_file(tmp_path / "1/step-000003/model.safetensors").keys()
    assert {"cls_entity_predictions.decoder.weight", "cls_entity_predictions.bias"} <= names
    lines = [json.loads(line) for line in (tmp_path / "1/metrics.jsonl").read_text().splitlines()]
    assert all("page_loss" in line and "page_accuracy" not in line for line in lines)
    opened, _, _ = checkpoint.load(tmp_path / "1")
    assert torch.equal(opened.page_head.weight, found["page_head.weight"])
    again = f"--recipe luke-base --stage 2 --init {tmp_path / '1'}"  # a stage without the head
    assert "page_head.bias" not in run(toy_data, tmp_path / "2", again)


def test_words_only_trains_the_words_alone(toy_data, tmp_path):
    start = run(toy_data, tmp_path / "0", "--learning-rate 0 --weight-decay 0")
    found = run(toy_data, tmp_path / "1", "--words-only")
    markers = EntityVocab.load(toy_data / "entity_vocab.jsonl")
    for name in start:
        side = name.startswith(("luke.entities.", "entity_head.", "luke.pooler.")) or "e2w_e2e" in name
        same = [torch.equal(one, other) for one, other in zip(start[name], found[name])] if start[name].dim() else []
        rows = [i for i, equal in enumerate(same) if not equal]
        assert not rows or rows == [markers.mask2_id] if side else rows, name
    lines = [json.loads(line) for line in (tmp_path / "1/metrics.jsonl").read_text().splitlines()]
    assert all(line["word_loss"] > 1 and line["entities_per_second"] == 0 for line in lines)


@pytest.mark.parametrize("options, message", [
    ("--words-only --predict-page", "--words-only: nothing of the entity side is left"),
    ("--random-word-prob 0.6 --unmasked-word-prob 0.5", "--random-word-prob 0.6 and --unmasked-word-prob 0.5: more"),
    ("--stage 2", "--stage 2: scratch-tiny has one stage; two have --recipe luke-base, luke-large, mluke-base"),
    ("--recipe luke-base", "--recipe luke-base has two stages: give --stage 1 or --stage 2"),
    ("--recipe luke-base --stage 2", "--stage 2 starts from a run of stage 1: give --init DIR"),
    ("--recipe mluke-large --stage 1", "--stage 1 starts from xlm-roberta-large: give --init DIR"),
])  # fmt: skip
def test_options_that_do_not_fit(options, message, capsys):
    with pytest.raises((ValueError, SystemExit)) as error:
        train.parse_arguments(options.split())
    assert message in str(error.value) + capsys.readouterr().err


# --- The page ---------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a page holds; an error if its elements do not nest."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.texts, self.points = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.points += [value for name, value in attributes if tag == "polyline" and name == "points"]
        assert not {"src", "href", "onload"} & {name for name, _ in attributes}
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_of_a_run(toy_data, tmp_path):
    """Refreshed at each save; self-contained; the curves end where the log does; guesses of the last validation."""
    train.main(f"--data {toy_data} --out {tmp_path} {SMALL} --save-every 2".split())
    page = Page((tmp_path / "report.html").read_text())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    said = " ".join(page.texts)
    assert "script" not in page.tags and "link" not in page.tags and page.tags.count("svg") == 6
    assert page.tags.count("article") == pretraining.SHOWN and page.tags.count("li") == 5 * pretraining.SHOWN
    assert f"{100 * lines[-1]['held_out_entity_accuracy']:.1f} %" in said and "after step 3" in said
    assert "scratch-tiny" in said and "--steps 3" in said and "prefers-color-scheme: dark" in said
    for points in page.points:
        corners = [tuple(map(float, point.split(","))) for point in points.split()]
        assert all(0 <= x <= report.WIDTH and 0 <= y <= report.HEIGHT for x, y in corners)
        assert len(corners) == 3 or len(corners) == 2  # of the run and of its validations


def test_charts():
    """A point is where its value is; long curves become shorter, spikes are dots; nothing to draw is no chart."""
    curves = {"one": [(0, 0.0), (10, 5.0), (20, 10.0)], "one, held out": [(0, 10.0), (20, 10.0)]}
    straight = Page(report.chart("A <b>", curves))
    left, right = report.LEFT, report.WIDTH - report.RIGHT
    top, bottom = report.TOP, report.HEIGHT - report.BOTTOM
    middle = (left + right) / 2, (top + bottom) / 2
    assert straight.points[0] == f"{left:.1f},{bottom:.1f} {middle[0]:.1f},{middle[1]:.1f} {right:.1f},{top:.1f}"
    assert straight.points[1] == f"{left:.1f},{top:.1f} {right:.1f},{top:.1f}"
    assert "A <b>" in straight.texts and {"2", "4", "10", "20"} <= set(straight.texts)
    long = [(float(x), float(x % 2)) for x in range(10_000)]
    thin = report.thinned(long)
    assert len(thin) <= report.MOST_POINTS and all(y == 0.5 for _, y in thin[:-1]) and thin[0][0] == 24.5
    assert report.thinned(long[:7]) == long[:7]
    assert Page(report.chart("x", {"a": [(1, 2.0)]}, marks=[(1, 9.0)])).tags.count("circle") == 1
    assert report.chart("x", {"a": []}) == ""


def test_a_histogram():
    """A bar stands where its numbers are, as high as they are many; many numbers share bars."""

    def drawn(values: list[int]) -> list[list[float]]:
        html = report.histogram("x", np.array(values))
        found = re.findall(r'<rect x="(.+?)" y="(.+?)" width=".+?" height="(.+?)"', html)
        rows = np.array(found, float)
        assert rows[:, 1:].sum(axis=1) == pytest.approx(report.HEIGHT - report.BOTTOM, abs=0.11)
        across, up = report.WIDTH - report.LEFT - report.RIGHT, report.HEIGHT - report.BOTTOM - report.TOP
        return [[(x - report.LEFT) / across, height / up] for x, _, height in rows.tolist()]

    expected = [[0, 1], [0.25, 1 / 3], [0.5, 0], [0.75, 1 / 3]]
    assert np.allclose(drawn([0, 3, 0, 1, 0]), expected, atol=1e-3)
    assert "mean <b>0.8</b>" in report.histogram("x", np.array([0, 0, 3, 1, 0]))
    assert np.allclose(drawn(range(1000)), [[k / 40, 1] for k in range(40)], atol=1e-3)
    assert report.histogram("x", np.array([], int)) == "" and len(drawn([0])) == 1


@pytest.mark.parametrize("low, high, expected", [
    (0.3, 9.2, [2, 4, 6, 8]), (0, 0.002, [0, 0.0005, 0.001, 0.0015, 0.002]), (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    (1490, 98168, [20000, 40000, 60000, 80000]),
])  # fmt: skip
def test_ticks_are_round(low, high, expected):
    assert report.ticks(low, high) == pytest.approx(expected)


def test_text_of_a_page_is_escaped(tmp_path):
    report.write(tmp_path / "page.html", "a < b", [report.table({"x": "<script>\x07"})])
    assert Page((tmp_path / "page.html").read_text()).texts.count("<script>\ufffd") == 1
