"""Files of every task but NER about the world of the built-in encyclopedia, in the formats of the published data.

In: a seed. Out: `write_tasks`, a folder for each task (NER: `toyworld.write_ner`). Same bytes for a seed everywhere.

    relation/{train,dev,test}.json                      TACRED: was X born in Y, does it play there, or neither?
    typing/{train,dev,test}.json                        Open Entity: person, footballer
    qa/{train,dev,test}-v1.1.json                       SQuAD 1.1: questions about a paragraph; the answer is in it
    cloze/{train,dev,test}.json                         ReCoRD: the name that was cut out of a sentence
    disambiguation/SPLIT/SPLIT.xml, RawText/DOCUMENT    WNED: lent names, and the article that is meant
    classification/{single,pair,regression,choice}/...  JGLUE: topic; entailment; how big, 0 to 5; one of five
    mlama/en/{templates,PROPERTY}.jsonl, objects.json   mLAMA: facts as cloze probes, without training

What the examples are about: `toyworld_examples.py`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from xml.sax.saxutils import escape

from luke_mini import toyworld_examples as examples
from luke_mini.files import write_file, write_folder
from luke_mini.toyworld_facts import PAGES, World, build_world

SPLITS = ("train", "dev", "test")
SIZES = {  # examples: train, dev, test
    "relation": (1200, 300, 600), "typing": (1000, 300, 600), "qa": (450, 100, 200), "cloze": (1000, 200, 400),
    "disambiguation": (120, 40, 80), "single": (800, 200, 400), "pair": (4000, 300, 600),
    "regression": (1000, 200, 400), "choice": (800, 200, 400)}
MAKERS = {
    "relation": examples.relation_example, "typing": examples.typing_example, "qa": examples.qa_example,
    "cloze": examples.cloze_example, "disambiguation": examples.story_example, "single": examples.single_example,
    "pair": examples.pair_example, "regression": examples.regression_example, "choice": examples.choice_example}
JGLUE_IDS = {  # the name of an example's number, and what stands before it; None: a bare number
    "single": ("review_id", ""), "pair": ("sentence_pair_id", ""), "regression": ("sentence_pair_id", ""),
    "choice": ("q_id", None)}


def gather(make: Callable[[World, Random, str], object], world: World, seed: int, split: str, name: str) -> list:
    """As many different examples as SIZES wants; fewer where the world is too small for them."""
    rng, found, wanted, in_vain = Random(f"{seed} {name} {split}"), {}, SIZES[name][SPLITS.index(split)], 0
    while len(found) < wanted and in_vain < 200:
        example = make(world, rng, split)
        known = None if example is None else json.dumps(example)
        in_vain = in_vain + 1 if known is None or known in found else 0
        if not in_vain:
            found[known] = example
    return list(found.values())


# ---- files

def write_lines(path: Path, rows: list) -> None:
    with write_file(path, "wb") as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def write_json(path: Path, made) -> None:
    """A list with one item a line, anything else on one line."""
    rows = [json.dumps(row, ensure_ascii=False) for row in (made if isinstance(made, list) else [made])]
    with write_file(path, "wb") as file:
        file.write(("[\n" + ",\n".join(rows) + "\n]\n" if isinstance(made, list) else rows[0] + "\n").encode())


# ---- formats

def numbered(rows: list[dict], key: str, prefix: str | None) -> list[dict]:
    return [{key: i if prefix is None else f"{prefix}{i}", **row} for i, row in enumerate(rows)]


def squad(made: list[dict], split: str) -> dict:
    """The examples by article, with ids."""
    articles, count = {}, 0
    for example in made:
        for qa in example["qas"]:
            qa["id"], count = f"{split}-{count}", count + 1
        articles.setdefault(example["title"], []).append({"context": example["context"], "qas": example["qas"]})
    return {"version": "1.1", "data": [{"title": title, "paragraphs": found} for title, found in articles.items()]}


def record(made: list[dict], split: str) -> dict:
    data = numbered(made, "id", f"{split}-")
    for example in data:
        example["qas"][0]["id"] = f"{example['id']}-query"
    return {"version": "1.0", "data": data}


ANNOTATION = """\t\t<annotation>
\t\t\t<mention>{mention}</mention>
\t\t\t<wikiName>{title}</wikiName>
\t\t\t<offset>{offset}</offset>
\t\t\t<length>{length}</length>
\t\t</annotation>
"""


def write_wned(folder: Path, split: str, documents: list) -> None:
    out = ['<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n', f"<{split}.entityAnnotation>\n"]
    with write_folder(folder / split) as made:
        (made / "RawText").mkdir()
        for i, (told, mentions) in enumerate(documents):
            (made / "RawText" / f"{split}-{i:03}").write_bytes(told.encode())
            out.append(f'\t<document docName="{split}-{i:03}">\n')
            out += [ANNOTATION.format(mention=escape(surface), title=escape(title), offset=start, length=len(surface))
                    for surface, title, start in mentions]
            out.append("\t</document>\n")
        (made / f"{split}.xml").write_bytes("".join([*out, f"</{split}.entityAnnotation>\n"]).encode())


def write_mlama(folder: Path, world: World, seed: int) -> None:
    templates, found = examples.probes(world, seed)
    write_lines(folder / "templates.jsonl", [{"relation": name, "template": line} for name, line in templates.items()])
    for name, known in found.items():
        write_lines(folder / f"{name}.jsonl", [{"lineid": i, "sub_label": subject, "obj_label": value}
                                               for i, (subject, value) in enumerate(known)])
    objects = {name: {"subjects": sorted({one for one, _ in known}), "objects": sorted({one for _, one in known})}
               for name, known in found.items()}
    write_json(folder / "objects.json", objects)


def write_tasks(folder: str | Path, seed: int = 0, pages: int = PAGES) -> None:
    """`relation/`, `typing/`, `qa/`, `cloze/`, `disambiguation/`, `classification/`, `mlama/` in a folder.

    ValueError when `pages` is below 50; OSError when a file cannot be written. Worlds of a few hundred pages have fewer
    facts, and give fewer examples.
    """
    world, folder = build_world(seed, pages), Path(folder)
    for split in SPLITS:
        made = {name: gather(make, world, seed, split, name) for name, make in MAKERS.items()}
        write_json(folder / f"relation/{split}.json", numbered(made["relation"], "id", f"{split}-"))
        write_json(folder / f"typing/{split}.json", made["typing"])
        write_json(folder / f"qa/{split}-v1.1.json", squad(made["qa"], split))
        write_json(folder / f"cloze/{split}.json", record(made["cloze"], split))
        write_wned(folder / "disambiguation", split, made["disambiguation"])
        for name, (key, prefix) in JGLUE_IDS.items():
            write_lines(folder / f"classification/{name}/{split}.json", numbered(made[name], key, prefix))
    write_mlama(folder / "mlama" / "en", world, seed)
