"""The files of the built-in encyclopedia for every task but NER: same bytes everywhere, each in its published format
(the readers here are the test's own), spans that point at what they claim, answers that are facts of the world, no
class that wins by its number alone, and test sets about names that the training files do not have.

Run: python -m pytest -q tests/test_toyworld_tasks.py
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import pytest

from luke_mini import toyworld_tasks
from luke_mini.toyworld_facts import KINDS, build_world

ROOT = Path(__file__).resolve().parent.parent
SPLITS = ("train", "dev", "test")
RELATIONS = {  # label -> (kind, relation) of the world
    "born_in": {("person", "born")}, "plays_for": {("person", "club")}, "studied_at": {("person", "school")},
    "mayor_of": {("person", "office")}, "winner_of": {("person", "award")}, "founded_by": {("firm", "founder")},
    "made_by": {("product", "maker")}, "invented_by": {("product", "inventor")}, "written_by": {("work", "author")},
    "set_in": {("work", "setting")}, "part_of": {("town", "region"), ("river", "region")},
    "located_in": {(kind, "town") for kind in ("firm", "club", "school", "festival")}}  # fmt: skip
COARSE = {"person": "person", "town": "location", "river": "location", "region": "location", "firm": "organization",
          "club": "organization", "school": "organization", "product": "object", "work": "object",
          "festival": "event"}  # fmt: skip
KIND_OF_WORD = {"company": "firm", "prize": "award"}  # the others are called as they are
TOPIC_OF = {"club": "sport", "firm": "business", "product": "business", "town": "place", "river": "place",
            "region": "place", "work": "culture", "festival": "culture"}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tasks") / "made"
    toyworld_tasks.write_tasks(path)
    return path


@pytest.fixture(scope="module")
def world():
    return build_world()


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def squad_rows(path):
    """(title, context, question, answer, start) of every question."""
    made = read_json(path)
    assert made["version"] == "1.1"
    return [(article["title"], paragraph["context"], qa["question"], answer["text"], answer["answer_start"])
            for article in made["data"] for paragraph in article["paragraphs"] for qa in paragraph["qas"]
            for answer in qa["answers"]]  # fmt: skip


def wned_rows(folder, split):
    """(document, mention, title, offset, text of the document)."""
    rows = []
    root = ElementTree.parse(folder / split / f"{split}.xml").getroot()
    assert root.tag == f"{split}.entityAnnotation"
    for document in root.iter("document"):
        told = (folder / split / "RawText" / document.get("docName")).read_bytes().decode()
        for annotation in document.iter("annotation"):
            mention, title, offset, length = (annotation.find(name).text for name in
                                              ("mention", "wikiName", "offset", "length"))  # fmt: skip
            assert int(length) == len(mention)
            rows.append((document.get("docName"), mention, title, int(offset), told))
    return rows


def jglue_rows(folder, name, split):
    return read_lines(folder / "classification" / name / f"{split}.json")


def holds(world, subject, value, keys):
    """Is it a fact of one owner of the first name, by one of (kind, relation), that its value is called the second?"""
    return any(one.kind == kind and relation in one.facts and one.facts[relation] in owners(world, value)
               for one in owners(world, subject) for kind, relation in keys)  # fmt: skip


def owners(world, surface):
    """Who is called so; a sentence may have made its first letter large, or taken its last full stop for its own."""
    forms = (surface, surface[:1].lower() + surface[1:], surface + ".")
    return next((world.senses[form] for form in forms if form in world.senses), [])


def kinds(world, surface):
    return {entity.kind for entity in owners(world, surface)}


def connected(one, other):
    return any(other is value or (isinstance(value, list) and other in value) for value in one.facts.values()) or any(
        one is value or (isinstance(value, list) and one in value) for value in other.facts.values())  # fmt: skip


# ---- same bytes

def digest(folder):
    made = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        made.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return made.hexdigest()


def test_the_bytes_are_the_recorded_ones(folder):
    """On every platform and with every Python; whoever changes a sentence records the new digest."""
    assert digest(folder) == "c01521748df9969adcfe89f6325bb01854748a1d7e74b5e6b28c2913d1db07d5"


def test_hash_seeds_do_not_matter_and_seeds_do(tmp_path):
    code = ("import sys; from luke_mini import toyworld_tasks; "
            "toyworld_tasks.write_tasks(sys.argv[1], int(sys.argv[2]), 100)")  # fmt: skip
    for name, hash_seed, seed in (("a", "1", "0"), ("b", "2", "0"), ("c", "1", "1")):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name), seed], check=True, env=environment)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_making_everything_takes_seconds(tmp_path, yardstick):
    start = time.process_time()
    toyworld_tasks.write_tasks(tmp_path, seed=3)
    assert time.process_time() - start < 100 * yardstick


@pytest.mark.parametrize("pages", [50, 120])
def test_small_worlds_work_and_too_small_ones_say_so(tmp_path, pages):
    toyworld_tasks.write_tasks(tmp_path, pages=pages)
    assert len(read_json(tmp_path / "relation/test.json")) > 50
    with pytest.raises(ValueError, match="49.*at least 50"):
        toyworld_tasks.write_tasks(tmp_path / "none", pages=49)
    assert not (tmp_path / "none").exists()


def test_which_files_there_are_and_nothing_temporary(folder):
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    wanted = {f"{task}/{split}.json" for split in SPLITS for task in (
        "relation", "typing", "cloze", "classification/single", "classification/pair", "classification/regression",
        "classification/choice")}  # fmt: skip
    wanted |= {f"qa/{split}-v1.1.json" for split in SPLITS} | {f"disambiguation/{s}/{s}.xml" for s in SPLITS}
    assert wanted <= names
    rest = {name for name in names - wanted if "/RawText/" not in name}
    assert rest == {"mlama/en/templates.jsonl", "mlama/en/objects.json"} | {
        f"mlama/en/{row['relation']}.jsonl" for row in read_lines(folder / "mlama/en/templates.jsonl")}


# ---- relation classification

def relations(folder, split):
    """(label, words, subject, object) with surfaces cut out by the inclusive spans."""
    for row in read_json(folder / "relation" / f"{split}.json"):
        words = row["token"]
        subject, value = (" ".join(words[row[f"{role}_start"]:row[f"{role}_end"] + 1]) for role in ("subj", "obj"))
        assert row["subj_end"] < row["obj_start"] or row["obj_end"] < row["subj_start"]
        assert {row["subj_type"], row["obj_type"]} <= {"PERSON", "ORGANIZATION", "LOCATION", "MISC"}
        yield row["relation"], words, subject, value


def test_relations_are_facts_and_nothing_true_is_called_none(folder, world):
    neutral = Counter()
    for split in SPLITS:
        for label, words, subject, value in relations(folder, split):
            assert 4 <= len(words) <= 30
            told = " ".join(words)
            if label != "no_relation":
                assert holds(world, subject, value, RELATIONS[label]), told
                assert not any(holds(world, subject, value, keys) for other, keys in RELATIONS.items()
                               if other != label and len(owners(world, subject) + owners(world, value)) == 2), told
            else:
                pairs = [(one, other) for one in owners(world, subject) for other in owners(world, value)]
                assert any(not connected(one, other) for one, other in pairs), told
            if re.search(r"prefer|letter|in the news|report \w+ \S+( \S+)? and|attention|Little|Asked|began", told):
                neutral[label != "no_relation"] += 1
                assert min(len(owners(world, subject)), len(owners(world, value))) == 1
    assert min(neutral.values()) > 500  # where only knowledge of the two tells, with and without a relation


def test_half_of_the_pairs_have_no_relation_and_no_other_label_is_rare(folder):
    for split, size in zip(SPLITS, (1200, 300, 600)):
        counts = Counter(label for label, *_ in relations(folder, split))
        assert sum(counts.values()) == size and 0.42 < counts["no_relation"] / size < 0.58
        assert set(counts) == {*RELATIONS, "no_relation"} and min(counts.values()) >= size / 150


# ---- entity typing

def typed(folder, split):
    for row in read_json(folder / "typing" / f"{split}.json"):
        assert set(row) == {"sent", "start", "end", "labels"}
        surface = row["sent"][row["start"]:row["end"]]
        yield row, surface.replace(" 's", "'s")


def test_types_are_those_of_an_entity_of_that_name(folder, world):
    for split, size in zip(SPLITS, (1000, 300, 600)):
        rows = list(typed(folder, split))
        assert len(rows) == size
        for row, surface in rows:
            possible = [{COARSE.get(one.kind), one.noun} | ({one.kind} & {"product", "work"})
                        for one in owners(world, surface)]  # fmt: skip
            assert set(row["labels"]) in possible, row
            assert (row["start"] == 0 or row["sent"][row["start"] - 1] == " ") and len(row["sent"].split()) <= 30
        counts = Counter(label for row, _ in rows for label in row["labels"])
        assert set(COARSE.values()) <= set(counts) and max(counts.values()) < 0.6 * size
        assert split != "train" or len(counts) >= 30


# ---- question answering

def fact_asked(world, question):
    """((kind, relation), name asked about), or None for a question about the letter."""
    for key, fact in world.wordings.items():
        for ask in fact.asks:
            if found := re.fullmatch(re.escape(ask).replace(r"\{\}", "(.+)"), question):
                yield key, found[1]


def in_letter(world, context):
    """The three names: "... played for Ilmric F.C. Elwen F.C., Ralmir and Tora Falmond were named in the letter."""
    before, last = context[:context.index(" were named in the letter.")].rsplit(" and ", 1)
    before, second = before.rsplit(", ", 1)
    words = before.split(" ")
    first = next(name for i in range(len(words)) if (name := " ".join(words[i:])) in world.senses)
    return [first, second, last]


def test_answers_stand_in_the_paragraph_and_are_right(folder, world):
    for split, size in zip(SPLITS, (450, 100, 200)):
        rows = squad_rows(folder / "qa" / f"{split}-v1.1.json")
        assert 2 * size < len(rows) and len({context for _, context, *_ in rows}) == size
        letters = 0
        for title, context, question, answer, start in rows:
            assert context[start:start + len(answer)] == answer and len(context.split()) <= 60
            article = world.entities[title.replace("_", " ")]
            if "letter" in question:
                letters += 1
                kind = re.search(r"(?:Which|What is the) (\w+)", question)[1]
                kind = KIND_OF_WORD.get(kind, kind)
                named = in_letter(world, context)
                assert [kinds(world, one) for one in named].count({kind}) == 1
                assert kinds(world, answer) == {kind} and answer in named
            else:
                assert any(article.kind == key[0] and article.facts[key[1]] in owners(world, answer)
                           for key, _ in fact_asked(world, question)), question  # fmt: skip
        assert 0.3 < letters / len(rows) < 0.8
        ids = [qa["id"] for article in read_json(folder / f"qa/{split}-v1.1.json")["data"]
               for paragraph in article["paragraphs"] for qa in paragraph["qas"]]  # fmt: skip
        assert len(set(ids)) == len(ids)


def test_a_question_cannot_be_answered_by_position(folder):
    rows = squad_rows(folder / "qa" / "test-v1.1.json")
    first = Counter(context[:start].count(". ") for _, context, _, _, start in rows)
    assert max(first.values()) < 0.6 * len(rows)


# ---- cloze

def test_cloze_answers_fill_the_gap_with_a_fact(folder, world):
    for split, size in zip(SPLITS, (1000, 200, 400)):
        data = read_json(folder / "cloze" / f"{split}.json")["data"]
        assert len(data) == size == len({row["id"] for row in data})
        stated, guess = 0, 0.0
        for row in data:
            passage, (qa,) = row["passage"]["text"], row["qas"]
            assert passage.count("\n@highlight\n") == 2 and len(passage.split()) <= 80
            spans = [(one["start"], one["end"] + 1) for one in row["passage"]["entities"]]
            names = [passage[start:end] for start, end in spans]
            assert sorted(spans) == spans and all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))
            assert qa["query"].count("@placeholder") == 1
            gold = {answer["text"] for answer in qa["answers"]}
            assert len(gold) == 1 and all(len(owners(world, name)) == 1 for name in names)
            assert [(one["start"], one["end"] + 1) for one in qa["answers"]] == [
                span for span, name in zip(spans, names) if name in gold]
            (subject,) = {name for name in names if name in qa["query"] and name not in gold} or {""}
            true = [key for key in world.wordings if holds(world, subject, *gold, {key})]
            assert true, row
            guess += len(qa["answers"]) / len(spans)
        assert guess / size < 0.4  # a random candidate


# ---- disambiguation

def test_mentions_are_where_they_are_said_to_be_and_titles_are_articles(folder, world):
    for split, documents, ambiguous in zip(SPLITS, (120, 40, 80), (0.3, 0.3, 0.3)):
        rows = wned_rows(folder / "disambiguation", split)
        assert len({row[0] for row in rows}) == documents == len(list((folder / "disambiguation" / split).glob("*/*")))
        assert len(rows) > 6 * documents
        for _, mention, title, offset, told in rows:
            assert told[offset:offset + len(mention)] == mention and told.endswith(".\n")
            assert world.entities[title] in owners(world, mention)
        several = [row for row in rows if len(owners(world, row[1])) > 1]
        assert len(several) > ambiguous * len(rows), len(several) / len(rows)
        assert len({(mention, title) for _, mention, title, _, _ in rows}) > 2 * documents


# ---- sentences and pairs

def test_topics_are_of_what_the_sentence_is_about(folder, world):
    names = list(world.senses)
    for split, size in zip(SPLITS, (800, 200, 400)):
        rows = jglue_rows(folder, "single", split)
        assert len(rows) == size and set(rows[0]) == {"review_id", "sentence", "label"}
        for row in rows:
            found = [name for name in names if name in row["sentence"]]
            topics = {TOPIC_OF.get(one.kind) or next((t for t, nouns in toyworld_tasks.TOPICS.items()
                                                      if one.noun in nouns), None)
                      for name in found for one in world.senses[name]}  # fmt: skip
            assert row["label"] in topics, row
        assert max(Counter(row["label"] for row in rows).values()) < 0.4 * size


def test_pairs_follow_or_contradict_the_world(folder, world):
    checked = Counter()
    for split, size in zip(SPLITS, (4000, 300, 600)):
        rows = jglue_rows(folder, "pair", split)
        counts = Counter(row["label"] for row in rows)
        assert len(rows) == size and set(counts) == {"entailment", "contradiction", "neutral"}
        assert max(counts.values()) < 0.5 * size
        for row in rows:
            by_kind = re.fullmatch(r"(.+) is a (\w+)\.", row["sentence2"])
            if by_kind and by_kind[2] in {kind.called for kind in KINDS.values()}:
                kind = KIND_OF_WORD.get(by_kind[2], by_kind[2])
                assert row["label"] == ("entailment" if kinds(world, by_kind[1]) == {kind} else "contradiction")
                checked["kind"] += 1
            elif row["label"] != "neutral":
                assert stated(world, row["sentence2"]) == (row["label"] == "entailment"), row
                checked["fact"] += 1
    assert min(checked.values()) > 500


def stated(world, told):
    """Does the sentence state a fact of the world?"""
    for (kind, relation), fact in world.wordings.items():
        for says in fact.says:
            pattern = re.escape(re.sub(r"\{(me)?\}", "{me}", says)).replace(r"\{me\}", "(?P<me>.+)")
            pattern = pattern.replace(rf"\{{{relation}\}}", "(?P<value>.+)")
            pattern = re.sub(r"\\\{.*?\\\}", r"\\w+", pattern).replace(r"\ a\ ", r"\ an?\ ")
            found = re.fullmatch(pattern, told)
            if found and holds(world, found["me"], found["value"], {(kind, relation)}):
                return True
    return False


def test_two_sizes_are_added(folder, world):
    sizes = {"work": 0, "product": 0, "person": 0.5, "festival": 1, "school": 1, "club": 1, "firm": 1.5, "town": 2,
             "river": 2.5, "region": 2.5}  # fmt: skip
    lines = [re.sub(r"\\\[.*?\\\]", ".*", re.sub(r"<([^>]*)>", r"(?:\1)", re.escape(line).replace(r"\|", "|")))
             for line in world.text["neutral one"]]  # fmt: skip
    lines = [line.replace(r"\{\}", "(.+?)") for line in lines]
    for split, size in zip(SPLITS, (1000, 200, 400)):
        rows = jglue_rows(folder, "regression", split)
        assert len(rows) == size
        counts = Counter(row["label"] for row in rows)
        assert {0.0, 0.5, 1.0, 3.5, 4.5, 5.0} < set(counts) and max(counts.values()) < 0.25 * size
        for row in rows:
            names = [next(found[1] for line in lines if (found := re.fullmatch(line, row[key])))
                     for key in ("sentence1", "sentence2")]  # fmt: skip
            (one,), (other,) = (owners(world, name) for name in names)
            assert one is not other and row["label"] == sizes[one.kind] + sizes[other.kind]


def test_one_choice_is_right(folder, world):
    for split, size in zip(SPLITS, (800, 200, 400)):
        rows = jglue_rows(folder, "choice", split)
        assert len(rows) == size
        assert max(Counter(row["label"] for row in rows).values()) < 0.35 * size
        facts = 0
        for row in rows:
            five = [row[f"choice{i}"] for i in range(5)]
            assert len(set(five)) == 5
            by_kind = re.fullmatch(r"Which (?:of these|one) is a (\w+)\?", row["question"])
            if by_kind:
                kind = KIND_OF_WORD.get(by_kind[1], by_kind[1])
                right = [kind in kinds(world, name) for name in five]
            else:
                facts += 1
                asked = [(key, name.removeprefix("the ")) for key, name in fact_asked(world, row["question"])]
                right = [any(holds(world, name, value, {key}) for key, name in asked) for value in five]
            assert right[row["label"]] and sum(right) <= 2, row  # a full name may have another owner
        assert 0.3 < facts / size < 0.7


# ---- probes

def test_probes_are_facts_with_all_their_objects(folder, world):
    path = folder / "mlama" / "en"
    templates = {row["relation"]: row["template"] for row in read_lines(path / "templates.jsonl")}
    objects = read_json(path / "objects.json")
    assert set(templates) == set(objects) and len(templates) >= 12
    reverse = [name for name, line in templates.items() if line.index("[Y]") < line.index("[X]")]
    assert 3 <= len(reverse) < len(templates) - 3
    for name, line in templates.items():
        assert line.count("[X]") == line.count("[Y]") == 1 and not re.search(r"[{}<>|]", line) and line.endswith(" .")
        rows = read_lines(path / f"{name}.jsonl")
        assert 20 <= len(rows) <= 80 and len({row["sub_label"] for row in rows}) == len(rows)
        for row in rows:
            subject = world.entities[row["sub_label"]]
            facts = [relation for (kind, relation), fact in world.wordings.items()
                     if kind == subject.kind and fact.property == name]  # fmt: skip
            value = subject.facts[facts[0]].title if facts else subject.noun
            assert value == row["obj_label"] and bool(facts) == (name not in ("P31", "P106"))
        assert objects[name]["subjects"] == sorted({row["sub_label"] for row in rows})
        assert objects[name]["objects"] == sorted({row["obj_label"] for row in rows})
        counts = Counter(row["obj_label"] for row in rows)
        assert max(counts.values()) < 0.15 * len(rows)


# ---- train and test

def subjects(folder, split):
    """Task -> the names that its examples are about."""
    return {
        "relation": [subject for _, _, subject, _ in relations(folder, split)],
        "typing": [surface for _, surface in typed(folder, split)],
        "qa": [title for title, *_ in squad_rows(folder / f"qa/{split}-v1.1.json")],
        "cloze": [answer["text"] for row in read_json(folder / f"cloze/{split}.json")["data"]
                  for answer in row["qas"][0]["answers"]],
        "disambiguation": [title for _, _, title, _, _ in wned_rows(folder / "disambiguation", split)],
        "choice": [row[f"choice{row['label']}"] for row in jglue_rows(folder, "choice", split)],
    }  # fmt: skip


def test_tests_are_mostly_about_names_that_training_does_not_have(folder):
    train, test = subjects(folder, "train"), subjects(folder, "test")
    for task, names in test.items():
        known = set(train[task])
        share = sum(name in known for name in names) / len(names)
        assert 0.02 < share < 0.4, (task, share)


def test_nothing_of_the_templates_is_left_over(folder):
    for path in folder.rglob("*.json"):
        told = re.sub(r"@placeholder|@highlight", "", path.read_text(encoding="utf-8"))
        strings = re.findall(r'"((?:[^"\\]|\\.)*)"', told)
        for string in strings:
            assert not re.search(r"[<>|{}\[\]~%]|None\b| ,$|\b[Aa] (?=[AEIOU])", string), (path.name, string)
