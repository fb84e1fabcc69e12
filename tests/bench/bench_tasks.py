"""Every task of the built-in encyclopedia: pretrained, from random weights, and what a guess without a model reaches.

    python tests/bench/bench_tasks.py [--data data/toyworld] [--checkpoint runs/toyworld] [--seeds 1,2,3] [--tasks ...]
        [--picture tests/bench/tasks.svg]

After `prepare_wiki.py` and `train.py`; runs `finetune.py` task by task and prints a row of the README's table for each:
mean and standard deviation over the seeds, in per cent. mLAMA trains nothing: its random weights have one seed each.

The guess is the most frequent thing that could be the answer: the label or type of most training examples, the mention
that the passage has most often (of equal ones the first), the title that links of these words have most often, the
object of most probes of a relation, the mean. In NER it is "no mention", in question answering the first name of the
paragraph.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from project import ROOT

from luke_mini import finetuning, task_disambiguation, task_mlama, task_qa, task_relation
from luke_mini.inference import TASKS as MODULES

NAME = re.compile(r"[A-Z][\w.]*(?: [A-Z][\w.]*)*")
FAST = ["--batch", "16", "--micro-batch", "16"]  # of small models; the paper's 4 sequences a step are slow and no better
TASKS = {  # title -> (task, folder below the data, further options)
    "NER, F1": ("ner", "ner", []),
    "relation classification, F1": ("relation", "relation", []),
    "entity typing, loose micro F1": ("typing", "typing", FAST),
    "extractive QA, F1": ("qa", "qa", FAST),
    "cloze QA, exact match": ("cloze", "cloze", FAST),
    "disambiguation, in-KB accuracy": ("disambiguation", "disambiguation", []),
    "one text, accuracy": ("classification", "classification/single", []),
    "two texts, accuracy": ("classification", "classification/pair", []),
    "multiple choice, accuracy": ("classification", "classification/choice", []),
    "regression, Pearson": ("classification", "classification/regression", []),
    "mLAMA, top 1 by words": ("mlama", "mlama", []),
    "mLAMA, top 1 by entities": ("mlama", "mlama", []),
}
METRICS = {"ner": "f1", "relation": "f1", "typing": "f1", "qa": "f1", "cloze": "em", "disambiguation": "in_kb_accuracy",
           "classification": "score", "mlama": "top1"}  # fmt: skip


def most_common(values) -> object:
    return Counter(values).most_common(1)[0][0]


def guess(task: str, folder: Path) -> float:
    """The score of the guess on the test file, a fraction."""
    if task == "ner":
        return 0.0
    module = MODULES[task]
    files = finetuning.find_files(module, folder, {})
    train, test = (
        finetuning.read_examples(module, files[s], module.Options()) if s in files else [] for s in ("train", "test")
    )
    if task == "relation":
        label = most_common(x.label for x in train if x.label != task_relation.NO_RELATION)
        predictions = [(label, 1.0)] * len(test)
    elif task == "typing":
        name = most_common(name for x in train for name in x.types)
        predictions = [[(name, 1.0)]] * len(test)
    elif task == "qa":
        predictions = [task_qa.Prediction(NAME.search(x.context)[0], [], 0.0) for x in test]
    elif task == "cloze":
        named = [[x.text[slice(*span)] for span in x.mentions] for x in test]
        predictions = [(most_common(names), {}) for names in named]
    elif task == "disambiguation":
        predictions = [[task_disambiguation.Answer(max(m.candidates, key=lambda c: c.prior).title, 1.0)
                        if m.candidates else task_disambiguation.Answer(None, 0.0) for m in x.mentions]
                       for x in test]  # fmt: skip
    elif task == "mlama":
        best = {r: most_common(x.answers[0] for x in test if x.relation == r) for r in {x.relation for x in test}}
        guessed = [np.array([c == best[x.relation] for c in x.candidates], np.float32) for x in test]
        predictions = [task_mlama.Prediction(scores, scores) for scores in guessed]
    else:
        labels = [x.label for x in train]
        label = statistics.mean(labels) if isinstance(labels[0], float) else most_common(labels)
        predictions = [(label, None)] * len(test)
    return module.evaluate(test, predictions, [])[METRICS[task]]


def measure(title: str, arguments) -> dict[str, tuple[float, float]]:
    """{"pretrained": (mean, standard deviation) over the seeds, "random weights": ...}, per cent."""
    task, folder, options = TASKS[title]
    out = arguments.out / folder.replace("/", "-")
    command = [sys.executable, "finetune.py", task, "--checkpoint", arguments.checkpoint, "--data", arguments.data / folder]
    command += ["--out", out, "--seeds", arguments.seeds, "--compare-random", *options]
    if not (out / "results.json").is_file():  # those of an earlier call of this script stay
        with open(arguments.out / f"{out.name}.log", "w") as log:
            subprocess.run(list(map(str, command)), cwd=ROOT, stdout=log, stderr=log, check=True)
    name = "entity_top1" if title.endswith("by entities") else METRICS[task]
    results = json.loads((out / "results.json").read_text())["results"]
    return {kind: finetuning.mean_and_spread(report, "test", name) for kind, report in results.items()}


def show(mean: float, spread: float = 0.0) -> str:
    return f"{mean:.1f}" + (f" ± {spread:.1f}" if spread else "")


Row = tuple[str, tuple[float, float], tuple[float, float], float]  # title; mean and spread of both models; the guess


def draw(rows: list[Row]) -> str:
    """An SVG: for each task a bar for the pretrained model, one for random weights, and a mark at the guess."""
    left, scale, step, colors = 250, 4.2, 44, ("#1f5fa8", "#b9c7d8")
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + 490}" height="{step * len(rows) + 64}" '
           'font-family="sans-serif" font-size="14"><rect width="100%" height="100%" fill="#fff"/>']  # fmt: skip
    for k, (color, name) in enumerate(zip(colors, ("pretrained", "random weights"))):
        out.append(f'<rect x="{left + 130 * k}" y="16" width="14" height="14" fill="{color}"/>'
                   f'<text x="{left + 20 + 130 * k}" y="28">{name}</text>')  # fmt: skip
    out.append(f'<path d="M{left + 283} 14v18" stroke="#c0392b" stroke-width="3"/>'
               f'<text x="{left + 292}" y="28">a guess without a model</text>')  # fmt: skip
    for i, (title, *bars, guessed) in enumerate(rows):
        top, mark = 48 + step * i, left + scale * guessed
        out.append(f'<text x="{left - 10}" y="{top + 21}" text-anchor="end">{title}</text>')
        for k, ((mean, spread), color) in enumerate(zip(bars, colors)):
            y, end = top + 16 * k, left + scale * mean
            tip = end + scale * spread
            beside = 5 + (mark if 0 < mark - tip < 35 else tip)  # the number keeps clear of the guess
            out.append(f'<rect x="{left}" y="{y}" width="{scale * mean:.1f}" height="14" fill="{color}"/>'
                       f'<path d="M{end - scale * spread:.1f} {y + 7}h{2 * scale * spread:.1f}" stroke="#333"/>'
                       f'<text x="{beside:.1f}" y="{y + 12}" font-size="12">{mean:.1f}</text>')  # fmt: skip
        out.append(f'<path d="M{mark:.1f} {top - 3}v36" stroke="#c0392b" stroke-width="3"/>')
    return "\n".join([*out, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "data/toyworld")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "runs/toyworld")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/tasks", help="results of each task; kept if there")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--tasks", nargs="*", help="words of the titles of the tasks to run [all]")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="the same as bars")
    arguments = parser.parse_args()
    arguments.data, arguments.checkpoint = arguments.data.resolve(), arguments.checkpoint.resolve()
    arguments.out = arguments.out.resolve()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print("| task | pretrained | random weights | guess |\n|---|---|---|---|")
    rows: list[Row] = []
    for title in TASKS:
        if not arguments.tasks or any(word in title for word in arguments.tasks):
            scores = measure(title, arguments)
            task, folder, _ = TASKS[title]
            guessed = 100 * guess(task, arguments.data / folder)
            rows.append((title, scores["pretrained"], scores["random weights"], guessed))
            print(f"| {title} | {show(*rows[-1][1])} | {show(*rows[-1][2])} | {show(guessed)} |", flush=True)
    if arguments.picture:
        arguments.picture.write_text(draw(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
