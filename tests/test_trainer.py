"""The training loop: one process = two processes = accumulated micro-batches; a killed run ends as it should.

    pytest tests/test_trainer.py

The runs are real ones: train.py in processes of their own, on a small cut of the built-in encyclopedia.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import closeness
import pytest
import torch
from closeness import assert_equal, assert_same, by_layer, seeded
from safetensors.torch import load_file, save_file

import prepare_wiki
import train
from luke_mini import batching, config, distributed, ops_cpu, progress, recipes, saves, tokenizer, trainer
from luke_mini.distributed import Rank
from luke_mini.entity_vocab import EntityVocab
from luke_mini.examples import Shards
from luke_mini.initialization import initialize
from luke_mini.model import LukeForPretraining

ROOT = Path(__file__).parent.parent
(SCRATCH,) = recipes.PRETRAINING["scratch-tiny"].stages
RECIPE = replace(SCRATCH, global_batch=8, micro_batch=8, dropout=0.0)


def environment() -> dict:
    threads = str(torch.get_num_threads())
    return os.environ | {"OMP_NUM_THREADS": threads, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def build(data: Path, recipe) -> tuple[LukeForPretraining, object, EntityVocab]:
    words, entities = tokenizer.load(data / "tokenizer"), EntityVocab.load(data / "entity_vocab.jsonl")
    shape = replace(config.TINY, vocab_size=len(words), entity_vocab_size=len(entities), num_hidden_layers=2)
    shape = replace(shape, hidden_dropout_prob=recipe.dropout, attention_probs_dropout_prob=recipe.dropout)
    model = LukeForPretraining(shape)
    initialize(model, shape, seeded())
    model.luke.pooler.requires_grad_(False)
    return model.double(), words, entities


def gradients(data: Path, recipe, rank: Rank, lanes: int = 1, recompute: bool = False) -> dict[str, torch.Tensor]:
    """Gradients of the second step of a run, by parameter name, in float64."""
    model, words, entities = build(data, recipe)
    for layer in model.luke.layers:
        layer.recompute = recompute
    wrapped = distributed.wrap(model, rank)
    [step] = batching.training_steps(Shards.open(data), words, entities, recipe, rank, 1, 2, lanes)
    assert len(step) >= lanes
    trainer.seed_step(recipe.seed, 1, rank.index)
    with ops_cpu.side_by_side(lanes) as each:
        trainer.accumulate_gradients(wrapped, step, rank, "fp32", each=each)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(ours: dict, expected: dict) -> None:
    assert ours.keys() == expected.keys() and len(ours) > 30
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, f"{name} has no gradient: the comparison would be empty"
    for layer, gradient in by_layer(expected).items():
        assert_same(by_layer(ours)[layer], gradient, layer)


@pytest.mark.parametrize("micro_batch", [4, 3, 1])
def test_accumulated_micro_batches_give_the_same_gradients(toy_data, micro_batch):
    rank = Rank(0, 1, torch.device("cpu"))
    whole = gradients(toy_data, RECIPE, rank)
    assert_same_gradients(gradients(toy_data, replace(RECIPE, micro_batch=micro_batch), rank), whole)


@pytest.mark.parametrize("micro_batch", [8, 1])
def test_micro_batches_side_by_side_give_the_same_gradients(toy_data, micro_batch):
    rank, recipe = Rank(0, 1, torch.device("cpu")), replace(RECIPE, micro_batch=micro_batch)
    assert_same_gradients(gradients(toy_data, recipe, rank, lanes=2), gradients(toy_data, recipe, rank))
    recipe = replace(recipe, dropout=0.1)
    once, again = (gradients(toy_data, recipe, rank, lanes=2) for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_recomputed_layers_give_the_same_bits_and_keep_little(toy_data):
    rank, recipe = Rank(0, 1, torch.device("cpu")), replace(RECIPE, micro_batch=3, dropout=0.1)
    kept, found = {}, {}
    for recompute in (False, True):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            found[recompute] = gradients(toy_data, recipe, rank, recompute=recompute)
        kept[recompute] = sum(sizes)
    assert all(torch.equal(found[True][name], gradient) for name, gradient in found[False].items())
    assert kept[True] < 0.5 * kept[False]


def test_layers_are_compiled_and_micro_batches_then_not_side_by_side(toy_data, tmp_path, monkeypatch):
    compiled, lanes = [], []
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: compiled.append(function) or function)
    monkeypatch.setattr(ops_cpu, "side_by_side", lambda count: lanes.append(count) or nullcontext(map))
    monkeypatch.setattr(ops_cpu, "threads", lambda: 3)
    for extra in ((), ("--compile",), ("--recompute",)):
        train.main([*command(toy_data, tmp_path, 1, *extra)[2:], "--steps", "1", "--overwrite"])
    assert lanes == [3, 1, 1] and len({layer.__self__ for layer in compiled}) == len(compiled) == 4


def test_a_gradient_that_two_parameters_share_is_added_up_for_each():
    class Shift(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))

        def forward(self, batch):
            return {"word": (((self.first + self.second) * batch.factor).sum(), torch.tensor(0))}

    words = SimpleNamespace(n_entities=0)
    parts = [SimpleNamespace(counts={"word": 1}, n_tokens=1, packed=words, factor=factor) for factor in (2.0, 4.0)]
    for part in parts:
        part.to = lambda device, part=part: part
    model = Shift()
    with ops_cpu.side_by_side(2) as each:
        trainer.accumulate_gradients(model, parts, Rank(0, 1, torch.device("cpu")), "fp32", each=each)
    assert [p.grad.tolist() for p in model.parameters()] == [[3.0] * 3] * 2


def test_side_by_side_is_for_one_process_on_a_cpu_and_bounded_by_the_model(monkeypatch):
    cpu, tiny = torch.device("cpu"), torch.nn.Linear(8, 8)
    base, large = (torch.nn.Linear(1 << size, 1 << 12, device="meta") for size in (13, 17))
    monkeypatch.setattr(ops_cpu, "threads", lambda: 3)
    assert [trainer.lanes(model, Rank(0, 1, cpu)) for model in (tiny, base, large)] == [3, 2, 1]
    assert trainer.lanes(tiny, Rank(0, 2, cpu)) == trainer.lanes(tiny, Rank(0, 1, torch.device("cuda"))) == 1
    monkeypatch.setattr(ops_cpu, "threads", lambda: 64)
    assert [trainer.lanes(model, Rank(0, 1, cpu)) for model in (tiny, base)] == [4, 2]


TWO_PROCESSES = """
import sys, torch
from pathlib import Path
from luke_mini import distributed
sys.path.insert(0, {tests!r})
import closeness
closeness.SEED = {seed}
from test_trainer import RECIPE, gradients, replace
rank = distributed.setup()
found = gradients(Path({data!r}), replace(RECIPE, micro_batch=4), rank)
if rank.is_first:
    torch.save(found, {out!r})
distributed.cleanup()
"""


def test_two_processes_give_the_same_gradients(toy_data, tmp_path):
    """Two gloo processes with half of the sequences each."""
    script, out = tmp_path / "two.py", tmp_path / "gradients.pt"
    places = {"tests": str(ROOT / "tests"), "data": str(toy_data), "out": str(out)}
    script.write_text(TWO_PROCESSES.format(**places, seed=closeness.SEED))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", str(script)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    whole = gradients(toy_data, RECIPE, Rank(0, 1, torch.device("cpu")))
    assert_same_gradients(torch.load(out), whole)


def test_the_loss_is_the_mean_over_all_predictions(toy_data):
    rank = Rank(0, 1, torch.device("cpu"))
    model, words, entities = build(toy_data, RECIPE)
    [micro] = next(batching.training_steps(Shards.open(toy_data), words, entities, RECIPE, rank, 0, 1))
    sums = trainer.accumulate_gradients(model, [micro], rank, "fp32")
    hidden = model.luke(micro.packed)
    scores = model.word_head(hidden[micro.masked_word_rows], model.luke.words.token.weight).detach()
    expected = torch.nn.functional.cross_entropy(scores, micro.masked_word_labels)
    loss, hits, count = sums["word"].tolist()
    assert_same(loss / count, expected)
    assert hits == int((scores.argmax(1) == micro.masked_word_labels).sum()) and count == len(micro.masked_word_rows)


def command(data: Path, out: Path, processes: int, *extra: str) -> list[str]:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--standalone"]
    options = "--steps 12 --global-batch 4 --micro-batch 2 --dropout 0.1 --save-every 3 --log-every 1"
    return [*start, str(ROOT / "train.py"), "--data", str(data), "--out", str(out), *options.split(), *extra]


def run(data: Path, out: Path, processes: int, *extra: str, script: str = "") -> subprocess.CompletedProcess:
    """train.py in processes of its own, or a script in its place."""
    call = command(data, out, processes, *extra)
    if script:
        path = out.with_suffix(".py")
        path.write_text(script)
        call[call.index(str(ROOT / "train.py"))] = str(path)
    return subprocess.run(call, env=environment(), capture_output=True, text=True, timeout=300)


def lines(out: Path) -> list[dict]:
    path = out / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
import train
from luke_mini import saves, trainer

def die():
    if os.environ.get("RANK", "0") == "0":
        os.kill(os.getpid(), signal.SIGKILL)

train_steps, save_tensors = trainer.train, saves.save_tensors
def dies_after_a_step(*given, **named):
    for done, sums in train_steps(*given, **named):
        yield done, sums
        if done == {step}:
            die()
def dies_in_a_save(tensors, path):
    save_tensors(tensors, path)
    if "step-{save:06d}" in str(path):
        die()
trainer.train, saves.save_tensors = dies_after_a_step, dies_in_a_save
train.main()
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_ends_with_the_same_bits(toy_data, tmp_path, processes):
    """Killed between saves, killed in the middle of a save, resumed: weights, optimiser, metrics are bit-identical."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(toy_data, whole, processes).returncode == 0
    for (step, save), left in {(5, 0): ["step-000003"], (0, 9): ["step-000003", "step-000006"]}.items():
        script = KILLED.format(root=str(ROOT), step=step, save=save)
        killed = run(toy_data, broken, processes, "--resume", script=script)
        assert killed.returncode == (-signal.SIGKILL if processes == 1 else 1), killed.stderr
        assert [path.name for path in saves.saved_steps(broken)] == left
    assert any(broken.glob(".step-000009.*.tmp/config.json"))
    done = run(toy_data, broken, processes, "--resume")
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "optimizer.safetensors"):
        expected, found = (load_file(out / "step-000012" / name) for out in (whole, broken))
        assert_equal(found, expected)
    expected, found = (
        [{k: v for k, v in line.items() if k not in progress.CLOCK} for line in lines(out)] for out in (whole, broken)
    )
    assert found == expected and len(found) == 12


def test_a_sharded_run_is_that_of_one_process_and_goes_on_with_another_number(toy_data, tmp_path):
    """Two processes with some rows of every weight each, and two micro-batches, against one process with all."""
    one, sharded, resumed = (tmp_path / name for name in ("one", "sharded", "resumed"))
    plain = "--global-batch", "8", "--steps", "6", "--dropout", "0", "--learning-rate", "1e-3", "--warmup-steps", "2"
    for out, processes, extra in ((one, 1, ()), (sharded, 2, ("--shard",))):
        done = run(toy_data, out, processes, *plain, *extra)
        assert done.returncode == 0, done.stderr
    shutil.copytree(sharded, resumed)
    shutil.rmtree(resumed / "step-000006")
    done = run(toy_data, resumed, 1, *plain, "--resume")
    assert done.returncode == 0, done.stderr
    expected = load_file(one / "step-000006" / "model.safetensors")
    start = load_file(one / "step-000003" / "model.safetensors")
    for out in (sharded, resumed):
        for name in ("word_loss", "entity_loss", "held_out_entity_loss", "gradient_norm"):
            pairs = [(a[name], b[name]) for a, b in zip(lines(one), lines(out), strict=True) if name in a]
            assert pairs and all(abs(a - b) < 1e-4 * a for a, b in pairs), name
        for name, tensor in load_file(out / "step-000006" / "model.safetensors").items():
            change = (expected[name] - start[name]).norm()
            assert (tensor - expected[name]).norm() <= 0.01 * change, name


def interrupt(monkeypatch, step: int, *signals: int) -> None:
    """Makes the training loop receive signals after a step."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    original = trainer.train

    def interrupted(*given, **named):
        for done, sums in original(*given, **named):
            if done == step:
                for number in signals:
                    signal.raise_signal(number)
            yield done, sums

    monkeypatch.setattr(trainer, "train", interrupted)


def test_ctrl_c_saves_the_step_and_the_resumed_run_ends_with_the_same_bits(toy_data, tmp_path, monkeypatch, capfd):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train.main(command(toy_data, whole, 1)[2:])
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        interrupt(patch, 4, signal.SIGINT)
        train.main(command(toy_data, broken, 1)[2:])
    out, error = capfd.readouterr()
    assert end.value.code == 0 and "stopping after this step, which is saved; Ctrl-C again stops at once\n" in error
    said = f"stopped     after step 4 of 12, saved in {broken / 'step-000004'}; --resume goes on from there"
    assert out.splitlines()[-1] == said and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train.main(command(toy_data, broken, 1, "--resume")[2:])
    assert "resumed     after step 4 of 12\n" in capfd.readouterr().out
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert_equal(*(load_file(out / "step-000012" / name) for out in (broken, whole)))


def test_a_second_ctrl_c_stops_at_once(toy_data, tmp_path, monkeypatch):
    interrupt(monkeypatch, 4, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train.main(command(toy_data, tmp_path, 1)[2:])
    assert [path.name for path in saves.saved_steps(tmp_path)] == ["step-000003"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_one_interrupted_process_stops_all(toy_data, tmp_path):
    """Two processes under torchrun, one of which gets a signal: both end after the same step, which is saved."""
    done = run(toy_data, tmp_path / "run", 2, script=INTERRUPTED.format(root=str(ROOT)))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stopped     after step 5 of 12") == 1
    assert [path.name for path in saves.saved_steps(tmp_path / "run")] == ["step-000003", "step-000005"]


INTERRUPTED = """
import os, signal, sys
sys.path.insert(0, {root!r})
import train
from luke_mini import trainer

original = trainer.train
def interrupted(*given, **named):
    for done, sums in original(*given, **named):
        if done == 5 and os.environ["RANK"] == "1":
            signal.raise_signal(signal.SIGTERM)
        yield done, sums
trainer.train = interrupted
train.main()
"""


def test_a_finished_run_can_be_extended(toy_data, tmp_path, capsys):
    """12 steps become 20: the rates are those of the old schedule before, and of the new one after."""
    call = command(toy_data, tmp_path, 1, "--warmup-steps", "2")[2:]
    train.main(call)
    capsys.readouterr()
    train.main([*call, "--resume", "--steps", "20"])
    out = capsys.readouterr().out
    assert "resumed     after step 12 of 20\n" in out
    assert "the learning rate follows a schedule of 20 steps from here on, until here of 12\n" in out
    shares = [line["learning_rate"] / SCRATCH.learning_rate for line in lines(tmp_path)]
    old, new = ([0.5, 1] + [(total - k) / (total - 2) for k in range(2, 20)] for total in (12, 20))
    assert shares == pytest.approx(old[:12] + new[12:])
    assert (tmp_path / "step-000020").is_dir()
    with pytest.raises(ValueError, match="step-000020: the run has these steps already; more than 12 cannot"):
        train.main([*call, "--resume"])
    with pytest.raises(ValueError, match="saved with recipe.learning_rate = "):
        train.main([*call, "--resume", "--steps", "30", "--learning-rate", "1"])


def test_what_a_run_prints(toy_data, tmp_path, capsys):
    """Lines for people: no dump of a dataclass, sizes in words, and a bar that fits into 80 columns."""
    train.main(command(toy_data, tmp_path, 1, "--steps", "2")[2:])
    out, error = capsys.readouterr()
    said = {line[:12].strip(): line for line in out.splitlines()}
    assert "Config(" not in out and max(map(len, error.replace("\n", "\r").split("\r"))) < 80
    assert "2/2 steps" in error and "loss: entity " in error and " word " in error
    weights, trained = map(float, re.search(r"(\S+)M weights, (\S+)M of them trained", said["model"]).groups())
    saved = sum(tensor.numel() for tensor in load_file(tmp_path / "step-000002/model.safetensors").values()) / 1e6
    assert 0.9 * saved < weights <= saved + 0.05 and trained <= weights
    examples = Shards.open(toy_data)
    assert f": {len(examples):,} examples, " in said["data"] and "threads, " in said["device"]
    assert f"2 steps of 4 examples, {8 / len(examples):.3g} epochs" in said["training"]
    assert "--warmup-steps 100  " in out
    done = r"trained     2 steps in \d+ s: \S+ tokens, \S+ per second, \d+% of the machine's product rate; "
    assert re.search(done + r"at most \d\.\d GB of memory", out)


def test_a_run_is_not_overwritten_nor_resumed_with_other_settings(toy_data, tmp_path):
    out = tmp_path / "run"
    (out / "step-000003").mkdir(parents=True)
    done = run(toy_data, out, 1)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "run: holds a run already; --resume, --overwrite or another --out DIR" in done.stderr
    done = run(toy_data, out, 1, "--resume")
    assert done.returncode == 2 and "optimizer.safetensors: missing" in done.stderr and done.stderr.count("\n") == 1


def test_a_loss_that_is_not_finite_stops_the_run_before_the_next_save(toy_data, tmp_path, capsys):
    """The steps from before stay as they are; the batch can be read; the error stands on a line of its own."""
    options = ["--data", str(toy_data), "--out", str(tmp_path), "--steps", "9", "--save-every", "1", "--log-every", "1"]
    options += ["--global-batch", "4", "--micro-batch", "2", "--warmup-steps", "5", "--learning-rate", "1e15"]
    with pytest.raises(ValueError, match=r"^step \d: the loss is not finite \(entity .*nan.*\), lear") as error:
        train.main(options)
    assert capsys.readouterr().err.endswith("\n")
    failed = int(re.match(r"step (\d)", str(error.value))[1])
    saved = saves.saved_steps(tmp_path)
    assert int(saved[-1].name[5:]) == failed - 1 == len(lines(tmp_path)) and "Infinity" not in str(lines(tmp_path))
    weights = load_file(saved[-1] / "model.safetensors") | load_file(saved[-1] / "optimizer.safetensors")
    assert all(weight.isfinite().all() for weight in weights.values())
    first, second = torch.load(tmp_path / "failed-batch-0.pt")
    assert str(tmp_path / "failed-batch-0.pt") in str(error.value) and len(first["masked_word_labels"])


def test_damaged_files_of_a_saved_step_are_named(toy_data, tmp_path):
    call = command(toy_data, tmp_path, 1, "--steps", "2", "--save-every", "1")[2:]
    train.main(call)
    step = tmp_path / "step-000002"

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message) as error:
            train.main([*call, "--resume", "--steps", "3"])
        assert "\n" not in str(error.value) and str(step) in str(error.value)

    run, moments = json.loads((step / "run.json").read_text()), load_file(step / "optimizer.safetensors")
    name = next(iter(moments))
    part = next(part for part in run["data"]["1"] if part.endswith(".bin"))
    for change, message in (
        ({"step": None}, "run.json: field 'step' is null, expected an integer"),
        ({"best": 3}, "run.json: field 'best' is 3, expected an object"),
        ({"precision": "bf16"}, "saved with precision = bf16, now it is fp32"),
        ({"data": {"1": run["data"]["1"] | {part: "0"}}}, rf"saved with data.1.{part} = 0, now it is [0-9a-f]{{16}}:"),
    ):
        (step / "run.json").write_text(json.dumps(run | change))
        refused(message)
    (step / "run.json").write_text(json.dumps(run))
    for change, message in (
        ({name: moments[name][:1].clone()}, rf"optimizer.safetensors: {name}: \[1.*\], exp"),
        ({name: moments[name] * float("nan")}, f"optimizer.safetensors: the weight {name} has numbers that are not"),
    ):
        save_file(moments | change, step / "optimizer.safetensors")
        refused("optimizer.safetensors: not what .*run.json has the hash of: missing or damaged")
        believe(step)
        refused(message)
    save_file({name: moments[name]}, step / "optimizer.safetensors")
    believe(step)
    refused("optimizer.safetensors: .*: missing, expected")
    save_file(moments, step / "optimizer.safetensors")
    believe(step)
    for path in (step / "model.safetensors", step / "config.json"):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        refused(f"{path.name}: not what .*run.json has the hash of: missing or damaged")
        path.unlink()
        refused(f"{path.name}: not what .*run.json has the hash of: missing or damaged")
        path.write_bytes(whole)


def believe(step: Path) -> None:
    """Writes the hashes of the files as they are now."""
    run = json.loads((step / "run.json").read_text())
    run["files"] = {name: hashlib.sha256((step / name).read_bytes()).hexdigest() for name in run["files"]}
    (step / "run.json").write_text(json.dumps(run))


def test_the_log_says_how_many_steps_are_kept(toy_data, tmp_path, capsys):
    options = f"--data {toy_data} --out {tmp_path} --steps 3 --save-every 1 --keep 1 --global-batch 2 --micro-batch 2"
    train.main(options.split())
    assert "saved       every 1 steps, the latest 1 are kept" in capsys.readouterr().out
    assert [path.name for path in saves.saved_steps(tmp_path)] == ["step-000003"]
    with pytest.raises(SystemExit):
        train.main([*options.split(), "--keep", "0"])
    assert "--keep 0: expected at least 1" in capsys.readouterr().err


def test_data_that_is_not_there(tmp_path):
    done = run(tmp_path / "nothing", tmp_path / "out", 1)
    assert done.returncode == 2 and done.stderr.startswith("train.py: error: ") and done.stderr.count("\n") == 1


def test_several_data_folders(toy_data, tmp_path):
    """Both are read, in shares that --sampling-exponent decides; one with another vocabulary is refused."""
    small = ["--dump", str(toy_data / "dump.xml.bz2"), "--max-pages", "30", "--max-seq-length", "64", "--workers", "1"]
    small += ["--tokenizer", str(toy_data / "tokenizer"), "--out", str(tmp_path / "small")]
    prepare_wiki.main([*small, "--entity-vocab", str(toy_data / "entity_vocab.jsonl")])
    folders = ["--data", str(toy_data), str(tmp_path / "small"), "--steps", "1", "--log-every", "1"]
    losses = []
    for exponent in ("0", "1"):
        train.main([*folders, "--out", str(tmp_path / exponent), "--sampling-exponent", exponent])
        losses.append(lines(tmp_path / exponent)[0]["word_loss"])
    assert losses[0] != losses[1]
    sizes = [len(Shards.open(folder)) for folder in (toy_data, tmp_path / "small")]
    state = json.loads((tmp_path / "1" / "step-000001" / "run.json").read_text())
    assert state["examples"] == sum(sizes)
    prepare_wiki.main([*small, "--min-count", "3"])
    with pytest.raises(ValueError, match="small/entity_vocab.jsonl differs from .*prepare_wiki.py .*--entity-vocab"):
        train.main([*folders, "--out", str(tmp_path / "other")])


def test_batches_for_prediction():
    """From long to short, each input once; equal lengths keep their order."""
    assert list(trainer.long_to_short([3, 9, 5, 9, 1], 2)) == [[1, 3], [2, 0], [4]]
    assert list(trainer.long_to_short([], 2)) == []
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    for mode in (True, False):
        model.train(mode)
        with pytest.raises(KeyError), trainer.predicting(model):
            assert not model.training and not model(torch.ones(2)).requires_grad
            raise KeyError
        assert model.training is mode and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_predicting_on_a_gpu_is_in_bf16(monkeypatch):
    """Here on a CPU, told to be as a GPU that has bf16; a CPU itself predicts in float32."""
    model = torch.nn.Linear(8, 8)
    with trainer.predicting(model):
        assert model(torch.ones(1, 8)).dtype == torch.float32
    monkeypatch.setattr(trainer, "prediction_precision", lambda device: "bf16")
    with trainer.predicting(model):
        assert model(torch.ones(1, 8)).dtype == torch.bfloat16
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert trainer.prediction_precision(torch.device("cuda")) == "fp32"  # emulated bf16 is slower than float32
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert trainer.prediction_precision(torch.device("cuda")) == "bf16"


def test_emulated_bf16_is_named(monkeypatch):
    rank = Rank(0, 1, torch.device("cpu"))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for has in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
        assert ("only emulates: --precision fp32" in trainer.device_text(rank, "bf16")) == (not has)
        assert "emulates" not in trainer.device_text(rank, "fp32")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert "emulates" not in trainer.device_text(rank, "bf16")


class Doubler(torch.nn.Linear):
    """Two logits an input; the batches of 8 and of 6 take time."""

    def collate(self, features):
        batch = SimpleNamespace(x=torch.tensor(features), rows_per_input=[1] * len(features))
        batch.to = lambda device: batch
        return batch

    def logits(self, batch):
        time.sleep({8: 0.03, 6: 0.15}.get(batch.x[0].item(), 0))
        assert not self.training and torch.is_inference_mode_enabled()  # though another lane is done meanwhile
        return torch.stack([batch.x, 2 * batch.x], dim=1)


@pytest.mark.parametrize("threads", [1, 3])
def test_logits_come_in_the_order_of_the_inputs(monkeypatch, threads):
    """The second batch is the last to be done."""
    monkeypatch.setattr(ops_cpu, "threads", lambda: threads)
    model, features = Doubler(1, 1).train(), [3, 7, 1, 8, 2, 6, 5]
    found = trainer.predict_logits(model, features, features, 2)
    assert [rows.tolist() for rows in found] == [[[i, 2 * i]] for i in features] and model.training


# --- The loader and what stays ----------------------------------------------------------------------------------------


def test_the_next_item_is_made_meanwhile():
    """While the caller works, the thread makes one item and no more; errors arrive at their place."""
    made = []

    def items():
        for number in range(5):
            made.append(number)
            yield number
        raise ValueError("the last one")

    loader, seen = trainer.Ahead(items()), []
    with pytest.raises(ValueError, match="the last one"):
        for item in loader:
            seen.append(item)
            deadline = time.monotonic() + 5
            while len(made) < min(item + 2, 5) and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.01)
            assert made == list(range(min(item + 2, 5)))
    assert seen == [0, 1, 2, 3, 4]
    assert list(trainer.Ahead([])) == []


def test_waiting_for_batches_is_measured():
    def slow():
        for number in range(3):
            time.sleep(0.05)
            yield number

    busy, idle = trainer.Ahead(slow()), trainer.Ahead(slow())
    for _ in busy:
        time.sleep(0.15)
    list(idle)
    assert 0.04 < busy.waited < 0.1 < 0.14 < idle.waited


def test_an_abandoned_loader_ends_its_thread():
    before = {*threading.enumerate()}  # a run that failed in another test may have left its own
    loader = iter(trainer.Ahead(iter(range(10))))
    assert next(loader) == 0 and [one.name for one in {*threading.enumerate()} - before] == ["loader_0"]
    loader.close()
    assert not {*threading.enumerate()} - before


def test_milestones_are_saved_and_stay(toy_data, tmp_path):
    """--keep-epochs: the last step of each epoch, whatever --save-every and --keep say."""
    n = len(Shards.open(toy_data))
    batch = -(-n // 3)  # three steps an epoch, the third one crosses its end
    options = f"--data {toy_data} --out {tmp_path} --steps 7 --global-batch {batch} --micro-batch 64 --keep 1"
    train.main(f"{options} --save-every 2 --keep-epochs --recipe scratch-tiny".split())
    assert [path.name for path in saves.saved_steps(tmp_path)] == ["step-000003", "step-000006", "step-000007"]
    assert {line["step"] for line in lines(tmp_path) if "held_out_word_loss" in line} == {2, 3, 4, 6, 7}


FULL = """
import resource, sys
sys.path.insert(0, {root!r})
from luke_mini import trainer
original = trainer.train
def limited(*given, **named):
    for done, sums in original(*given, **named):
        if done == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
        yield done, sums
trainer.train = limited
import train
from luke_mini import files
files.run(lambda: train.main(sys.argv[1:]), "train.py")
"""


@pytest.mark.parametrize("size", [100, 20_000, 3_000_000])
def test_a_full_disk_keeps_the_last_good_step(toy_data, tmp_path, size):
    """From step 4 on no file can be larger than `size`: one line that names a file, and the run resumes from step 3."""
    done = run(toy_data, tmp_path / "run", 1, script=FULL.format(root=str(ROOT), size=size))
    error = done.stderr.replace("\r", "\n").strip().splitlines()[-1]
    assert done.returncode == 2 and error.startswith("train.py: error: "), done.stderr
    assert str(tmp_path / "run") in error
    assert [path.name for path in saves.saved_steps(tmp_path / "run")] == ["step-000003"]
    again = run(toy_data, tmp_path / "run", 1, "--resume")
    assert again.returncode == 0 and "resumed     after step 3 of 12" in again.stdout
