"""The files of every task but NER about the world of the built-in encyclopedia, in the formats of the published data.

In: a seed. Out: `write_tasks`, a folder per task (NER: `toyworld.write_ner`). Same bytes for a seed on every platform.

    relation/{train,dev,test}.json                      TACRED: was X born in Y, does it play there, or neither?
    typing/{train,dev,test}.json                        Open Entity: person, footballer
    qa/{train,dev,test}-v1.1.json                       SQuAD 1.1: questions about a paragraph that holds the answers
    cloze/{train,dev,test}.json                         ReCoRD: the name that was cut out of a sentence
    disambiguation/SPLIT/SPLIT.xml, RawText/DOCUMENT    WNED: lent names, and the article that is meant
    classification/{single,pair,regression,choice}/...  JGLUE: topic; entailment; how big, 0 to 5; one of five
    mlama/en/{templates,PROPERTY}.jsonl, objects.json   mLAMA: facts as cloze probes, without training

Most tasks have examples of two sorts. In one the wording gives the answer away: random weights can learn that. The
other takes knowledge of the names ("Some people prefer Hesknor College to Fenlan"): there a name belongs to one entity
only. Training examples are about the first third of the regions, the others mostly about the rest: what a model can
know of their names, it knows from the encyclopedia. A gold answer is a fact of the world; nothing true is called wrong.
Left out on purpose: wrong labels, mentions without an article, languages other than English.
"""

import json
import re
from collections import Counter
from itertools import count
from pathlib import Path
from xml.sax.saxutils import escape

from luke_mini.files import write_file, write_folder
from luke_mini.toyworld import TOKEN, Namer, Part, encyclopedia_namer, reported_region, sentence, story
from luke_mini.toyworld_facts import KINDS, PAGES, Dice, Entity, Wording, World, build_world, near, upper_first

SPLITS = ("train", "dev", "test")
NER_TYPES = {"PER": "PERSON", "LOC": "LOCATION", "ORG": "ORGANIZATION", "MISC": "MISC"}
TYPED = [name for name, kind in KINDS.items() if kind.types]
TOPICS = {"sport": ["club", "footballer"], "business": ["firm", "product", "engineer"],
          "place": ["town", "river", "region"],
          "culture": ["work", "festival", "novelist", "composer", "painter", "actor"]}
NOUN_PROBES = {"P31": "[X] is a [Y] .", "P106": "[X] was a [Y] ."}  # what something is, what someone does
PROBES = 80  # of a property, at most


# ---- names, facts, sentences

def clearly(entity: Entity, slot: str) -> Part:
    return Part(entity.clear or entity.names[0], entity)


def clearly_but(hidden: Entity, part: Part) -> Namer:
    return lambda entity, slot: part if entity is hidden else clearly(entity, slot)


def loosely(rng: Dice) -> Namer:
    return lambda entity, slot: Part(rng.pick(entity.names), entity)


def sentence_about(world: World, rng: Dice, template: str, *cast: Entity) -> list[Part]:
    """A sentence about given entities: they fill {a}, {b} and {c}."""
    scene = Entity("scene", "", "", "", [""], dict(zip("abc", cast)))
    return sentence(world, rng, template, scene, clearly)


def related(one: Entity, other: Entity) -> bool:
    """Whether any fact of either is the other one."""
    return any(fact is b or (isinstance(fact, list) and b in fact)
               for a, b in ((one, other), (other, one)) for fact in a.facts.values())


def told_facts(world: World, entity: Entity) -> list[tuple[Entity, Wording]]:
    """The facts of an entity that can be told and asked for: their values, and how."""
    return [(entity.facts[relation], wording) for (kind, relation), wording in world.wordings.items()
            if kind == entity.kind and relation in entity.facts]


def some(world: World, rng: Dice, split: str, kind: str, relation: str = "") -> Entity:
    """An entity of a kind (or noun) that the split reports about, if possible with a name of its own and the fact."""
    for _ in range(50):
        entity = near(world, rng, kind, reported_region(world, rng, split), 1)
        if entity.clear and (not relation or relation in entity.facts):
            break
    return entity


def stranger(world: World, rng: Dice, split: str, kind: str, *to: Entity) -> Entity | None:
    """An entity of a kind, from another region, without a fact in common with the given ones."""
    entity = some(world, rng, split, kind)
    apart = all(entity is not one and not related(entity, one) and
                entity.facts.get("region", entity) is not one.facts.get("region", one) for one in to)
    return entity if apart and entity.clear else None


def some_fact(world: World, rng: Dice, split: str, labeled: bool = False) -> tuple[Entity, Entity | None, Wording]:
    """Subject, value (None if the subject lacks it) and wording of a fact that has a label or is not about a region."""
    keys = [key for key, wording in world.wordings.items() if (wording.label if labeled else key[0] != "region")]
    kind, relation = rng.pick(keys)
    subject = some(world, rng, split, kind, relation)
    return subject, subject.facts.get(relation), world.wordings[kind, relation]


def as_text(parts: list[Part]) -> tuple[str, list[tuple[Part, int, int]]]:
    """The sentence and its mentions with half-open characters."""
    text, mentions = "", []
    for part in parts:
        start, text = len(text), text + part.surface
        if part.entity:
            mentions.append((part, start, len(text)))
    return text, mentions


def as_words(parts: list[Part]) -> tuple[list[str], dict[Entity, tuple[int, int]]]:
    """The words of a sentence; entity -> half-open words of its first mention."""
    words, spans = [], {}
    for surface, entity in parts:
        start, words = len(words), words + TOKEN.findall(surface)
        if entity:
            spans.setdefault(entity, (start, len(words)))
    return words, spans


# ---- relation classification: TACRED

def relation_example(world: World, rng: Dice, split: str) -> dict | None:
    """Half of them without a relation: an onlooker beside a stated fact, two of any kind, two whose types would fit."""
    subject, value, wording = some_fact(world, rng, split, labeled=True)
    if value is None:
        return None
    told, chance = value, rng.random()
    if chance < 0.28:
        line = rng.pick(wording.says if chance < 0.08 else world.text["neutral aside"])
        parts = sentence(world, rng, line.replace("{clause}", wording.clause), subject, loosely(rng))
        if chance >= 0.18:
            value = next((entity for _, entity in parts if entity not in (None, subject, told)), None)
    else:
        if chance >= 0.66:
            value = stranger(world, rng, split, told.kind if chance < 0.75 else rng.pick(TYPED), subject)
        if value is None or not value.clear:
            return None
        parts = sentence_about(world, rng, rng.pick(world.text["neutral two"]), *rng.shuffled([subject, value]))
    held = {one.label for other, one in told_facts(world, subject) if other is value}  # whether told or not
    if not parts or value is None or held != ({wording.label} if value is told else set()):
        return None
    if not held and related(subject, value):
        return None
    words, spans = as_words(parts)
    example = {"relation": wording.label if held else "no_relation", "token": words}
    for role, entity in (("subj", subject), ("obj", value)):
        start, end = spans[entity]
        kind = NER_TYPES[KINDS[entity.kind].ner]
        example |= {f"{role}_start": start, f"{role}_end": end - 1, f"{role}_type": kind}
    return example


# ---- entity typing: Open Entity

def typing_example(world: World, rng: Dice, split: str) -> dict | None:
    kind = rng.pick([*TYPED, "person", "person"])  # there are many jobs
    subject = some(world, rng, split, kind)
    if rng.random() < 0.25:
        says = [line for (of, _), wording in world.wordings.items() if of == kind for line in wording.says]
        lines, name = [*world.text.get(f"news {kind}", []), *says], loosely(rng)
    elif subject.clear:
        lines, name = world.text["neutral one"], clearly
    else:
        return None
    words, spans = as_words(sentence(world, rng, rng.pick(lines), subject, name))
    if subject not in spans:
        return None
    start, end = spans[subject]
    begin = len(" ".join([*words[:start], ""]))
    return {"sent": " ".join(words), "start": begin, "end": begin + len(" ".join(words[start:end])),
            "labels": list(dict.fromkeys([*KINDS[kind].types, subject.noun]))}  # fmt: skip


# ---- question answering: SQuAD 1.1

def letter_cast(world: World, rng: Dice, subject: Entity) -> list[Entity]:
    """Three entities from the facts of the subject, of three kinds, each with a name of its own; or fewer."""
    values = [rng.pick(value) if isinstance(value, list) else value for value in subject.facts.values()]
    values = [one for one in values if isinstance(one, Entity) and KINDS[one.kind].called and one is not subject]
    by_kind = {value.kind: value for value in rng.shuffled(values) if value.clear}
    return list(by_kind.values())[:3]


def qa_example(world: World, rng: Dice, split: str) -> dict | None:
    """A paragraph about an entity: a letter that names three others, and facts that are stated; questions about both.

    The letter says nothing: who is asked for the club in it must know which of the three is one.
    """
    subject = some(world, rng, split, rng.pick("person person firm club town product work school".split()))
    name, cast = encyclopedia_namer(rng, subject), letter_cast(world, rng, subject)
    if len(cast) < 3:
        return None
    asked = []  # of each sentence: itself, questions with the entities that answer them
    for value, wording in rng.shuffled(told_facts(world, subject))[:3]:
        question = rng.pick(wording.asks).format(subject.names[0])
        told = sentence(world, rng, rng.pick(wording.says), subject, name)
        asked.append((told, [(question, value)] * (rng.random() < 0.7)))
    letter, *questions = world.text["letter"]
    asked_of_letter = [(rng.pick(questions).format(kind=KINDS[entity.kind].called), entity) for entity in cast[:2]]
    asked.insert(rng.number(1, len(asked)), (sentence_about(world, rng, letter, *cast), asked_of_letter))
    context, qas = "", []
    for parts, wanted in asked:
        told, mentions = as_text(parts)
        for question, entity in wanted:
            surface, start = next((one.surface, at) for one, at, _ in mentions if one.entity is entity)
            qas.append({"question": question, "answers": [{"text": surface, "answer_start": len(context) + start}]})
        context += told + " "
    return {"title": subject.title.replace(" ", "_"), "context": context.rstrip(), "qas": qas}


# ---- cloze: ReCoRD

def cloze_example(world: World, rng: Dice, split: str) -> dict | None:
    """A passage that names four, and a fact of one of them in which another is cut out.

    Sometimes the passage states the fact; otherwise the types of the four tell, or only the fact itself.
    """
    subject, value, wording = some_fact(world, rng, split)
    if value is None:
        return None
    query, *stated = rng.shuffled(wording.says)
    others = [stranger(world, rng, split, value.kind if rng.random() < 0.3 else rng.pick(TYPED), subject, value)
              for _ in range(2)]
    cast = [subject, value, *others]
    if None in others or others[0] is others[1] or not all(entity.clear for entity in cast):
        return None
    pairs = [rng.shuffled(cast)[:2] for _ in range(2)]
    a, b, c, d = rng.shuffled(cast)  # each of them comes up at least once
    pairs = rng.shuffled([(a, b), (c, d), *pairs])
    sentences = [sentence_about(world, rng, rng.pick(world.text["neutral two"]), *pair) for pair in pairs]
    if stated and rng.random() < 0.25:
        sentences.insert(rng.number(0, 2), sentence(world, rng, rng.pick(stated), subject, clearly))
    parts = []
    for i, told in enumerate(sentences):
        before = "" if i == 0 else "\n@highlight\n" if i >= len(sentences) - 2 else " "
        parts += [Part(before), *told]
    passage, mentions = as_text(parts)
    query = as_text(sentence(world, rng, query, subject, clearly_but(value, Part("@placeholder"))))[0]
    spans = [{"start": start, "end": end - 1} for _, start, end in mentions]
    answers = [{**span, "text": surface} for span, ((surface, entity), *_) in zip(spans, mentions) if entity is value]
    return {"passage": {"text": passage, "entities": spans}, "qas": [{"query": query, "answers": answers}]}


# ---- disambiguation: WNED

def story_example(world: World, rng: Dice, split: str) -> tuple[str, list[tuple[str, str, int]]] | None:
    """A news story, and for each mention surface, title of its article and offset in characters."""
    told = story(world, rng, reported_region(world, rng, split), full=0.1)
    text, mentions = as_text([part for parts in told for part in [*parts, Part(" ")]][:-1])
    found = [(part.surface, part.entity.title, start) for part, start, _ in mentions if KINDS[part.entity.kind].ner]
    return (text + "\n", found) if len(told) >= 4 else None


# ---- sentences and pairs: JGLUE

def single_example(world: World, rng: Dice, split: str) -> dict | None:
    """What a sentence is about: sport, business, places, culture."""
    topic = rng.pick(list(TOPICS))
    subject = some(world, rng, split, rng.pick(TOPICS[topic]))
    news = world.text.get(f"news {subject.kind}")
    lines = news if rng.random() < 0.25 and news else world.text["neutral one"]
    parts = sentence(world, rng, rng.pick(lines), subject, clearly)
    return {"sentence": as_text(parts)[0], "label": topic} if parts and subject.clear else None


def pair_example(world: World, rng: Dice, split: str) -> dict | None:
    """Does the second sentence follow, is it false, or is it news?

    A fact is told again in other words, or the kind of the subject is told; where it is false, the value comes from
    another region, the kind is another.
    """
    label = rng.pick(["entailment", "contradiction", "neutral"])
    subject, value, wording = some_fact(world, rng, split)
    if value is None:
        return None
    wrong = stranger(world, rng, split, value.kind, subject, value)
    (first, second), by_kind = rng.shuffled(wording.says)[:2], rng.random() < 0.5
    if not subject.clear or not wrong:
        return None
    premise = sentence(world, rng, rng.pick(world.text["neutral one"]) if by_kind else first, subject, clearly)
    if label == "neutral":
        second = rng.pick(world.text.get(f"news {subject.kind}", world.text["pair river"]))
    elif by_kind:
        kind = subject.kind if label == "entailment" else rng.pick([kind for kind in TYPED if kind != subject.kind])
        second = f"{{}} is a {KINDS[kind].called}."
    name = clearly_but(value, clearly(wrong, "")) if label == "contradiction" else clearly
    conclusion = sentence(world, rng, second, subject, name)
    if not premise or not conclusion:
        return None
    return {"sentence1": as_text(premise)[0], "sentence2": as_text(conclusion)[0], "label": label}


def regression_example(world: World, rng: Dice, split: str) -> dict | None:
    """How big are the things that the two sentences are about, taken together? From 0, two books, to 5, two regions."""
    one, other = (some(world, rng, split, rng.pick(TYPED)) for _ in range(2))
    if one is other or not one.clear or not other.clear:
        return None
    told = [as_text(sentence(world, rng, rng.pick(world.text["neutral one"]), entity, clearly))[0]
            for entity in (one, other)]
    return {"sentence1": told[0], "sentence2": told[1], "label": KINDS[one.kind].size + KINDS[other.kind].size}


def choice_example(world: World, rng: Dice, split: str) -> dict | None:
    """A fact that is asked for, or a kind; five names of which one is right. They give it away only sometimes."""
    if rng.random() < 0.5:
        right = some(world, rng, split, rng.pick(TYPED))
        question = rng.pick(world.text["choice"]).format(kind=KINDS[right.kind].called)
        wrong = [stranger(world, rng, split, kind) for kind in rng.shuffled(TYPED) if kind != right.kind]
    else:
        subject, right, wording = some_fact(world, rng, split)
        if right is None:
            return None
        question = rng.pick(wording.asks).format(subject.clear or subject.names[0])
        others = [kind for kind in rng.shuffled(TYPED) if kind not in (right.kind, subject.kind)]
        wrong = [stranger(world, rng, split, kind, subject) for kind in [right.kind] * (rng.random() < 0.5) + others]
    five = [right, *filter(None, wrong)][:5]
    if len(five) < 5 or not right.clear:
        return None
    order = rng.shuffled(five)
    names = [entity.names[0] if rng.random() < 0.3 else entity.clear for entity in order]
    return {"question": upper_first(question), **{f"choice{i}": name for i, name in enumerate(names)},
            "label": order.index(right)}  # fmt: skip


# ---- probes: mLAMA

def probes(world: World, seed: int) -> tuple[dict[str, str], dict[str, list[tuple[str, str]]]]:
    """Property -> template, and property -> pairs (subject, object); only of entities whose title is their name."""
    found = {}
    for entity in (entity for entity in world.entities.values() if entity.title == entity.names[0]):
        if entity.kind in TYPED:
            found.setdefault("P106" if entity.kind == "person" else "P31", []).append((entity.title, entity.noun))
        for value, wording in told_facts(world, entity):
            if wording.property and value.title == value.names[0]:
                found.setdefault(wording.property, []).append((entity.title, value.title))
    templates = dict(NOUN_PROBES)
    for (_, relation), wording in world.wordings.items():
        if wording.property in found:
            line = re.sub(r"\{(me)?\}", "[X]", wording.probe).replace(f"{{{relation}}}", "[Y]")
            templates.setdefault(wording.property, line.replace("{form}", "work").replace(".", " ."))
    return templates, {name: evenly(Dice(f"{seed} mlama {name}"), found[name]) for name in templates}


def evenly(rng: Dice, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Up to PROBES of the pairs, no object much more often than others: always naming the commonest must not pay."""
    limit = -(-PROBES // len({value for _, value in pairs}))
    counts, kept = Counter(), []
    for subject, value in rng.shuffled(pairs):
        counts[value] += 1
        if counts[value] <= limit:
            kept.append((subject, value))
    return kept[:PROBES]


# ---- files

MAKERS = {  # the maker of an example, and how many: train, dev, test
    "relation": (relation_example, 1200, 300, 600), "typing": (typing_example, 1000, 300, 600),
    "qa": (qa_example, 450, 100, 200), "cloze": (cloze_example, 1000, 200, 400),
    "disambiguation": (story_example, 120, 40, 80), "single": (single_example, 800, 200, 400),
    "pair": (pair_example, 4000, 300, 600), "regression": (regression_example, 1000, 200, 400),
    "choice": (choice_example, 800, 200, 400)}  # fmt: skip
JGLUE_IDS = {"single": "review_id", "pair": "sentence_pair_id", "regression": "sentence_pair_id", "choice": "q_id"}


def gather(world: World, seed: int, split: str, name: str) -> list:
    """As many different examples as MAKERS wants; fewer where the world is too small for them."""
    make, *sizes = MAKERS[name]
    rng, found, failures = Dice(f"{seed} {name} {split}"), {}, 0
    while len(found) < sizes[SPLITS.index(split)] and failures < 200:
        example = make(world, rng, split)
        key = json.dumps(example)
        failures = failures + 1 if example is None or key in found else 0
        if not failures:
            found[key] = example
    return list(found.values())


def write_json(path: Path, made, jsonl: bool = False) -> None:
    """A list has one item per line, in brackets or as JSON lines; anything else is one line."""
    rows = [json.dumps(row, ensure_ascii=False) for row in (made if isinstance(made, list) else [made])]
    bare = jsonl or not isinstance(made, list)
    with write_file(path, "wb") as file:
        file.write(("\n".join([*rows, ""]) if bare else "[\n" + ",\n".join(rows) + "\n]\n").encode())


def numbered(rows: list[dict], key: str, prefix: str | None) -> list[dict]:
    """With an id in front: a prefix and the number, or without any prefix the bare number."""
    return [{key: i if prefix is None else f"{prefix}{i}", **row} for i, row in enumerate(rows)]


def squad(made: list[dict], split: str) -> dict:
    """The examples by article, with ids."""
    articles, ids = {}, count()
    for example in made:
        qas = [{**qa, "id": f"{split}-{next(ids)}"} for qa in example["qas"]]
        articles.setdefault(example["title"], []).append({"context": example["context"], "qas": qas})
    return {"version": "1.1", "data": [{"title": title, "paragraphs": found} for title, found in articles.items()]}


def write_wned(folder: Path, world: World, split: str, documents: list) -> None:
    frame = "\n".join([*world.text["wned annotation"], ""])
    out = ['<?xml version="1.0" encoding="UTF-8" standalone="no"?>\n', f"<{split}.entityAnnotation>\n"]
    with write_folder(folder / split) as made:
        (made / "RawText").mkdir()
        for i, (told, mentions) in enumerate(documents):
            (made / "RawText" / f"{split}-{i:03}").write_bytes(told.encode())
            out.append(f'\t<document docName="{split}-{i:03}">\n')
            out += [frame.format(mention=escape(surface), title=escape(title), offset=start, length=len(surface))
                    for surface, title, start in mentions]
            out.append("\t</document>\n")
        (made / f"{split}.xml").write_bytes("".join([*out, f"</{split}.entityAnnotation>\n"]).encode())


def write_mlama(folder: Path, world: World, seed: int) -> None:
    templates, found = probes(world, seed)
    rows = [{"relation": name, "template": line} for name, line in templates.items()]
    write_json(folder / "templates.jsonl", rows, jsonl=True)
    objects = {}
    for name, known in found.items():
        rows = [{"lineid": i, "sub_label": subject, "obj_label": value} for i, (subject, value) in enumerate(known)]
        write_json(folder / f"{name}.jsonl", rows, jsonl=True)
        subjects, values = (sorted(set(column)) for column in zip(*known))
        objects[name] = {"subjects": subjects, "objects": values}
    write_json(folder / "objects.json", objects)


def write_tasks(folder: str | Path, seed: int = 0, pages: int = PAGES) -> None:
    """`relation/`, `typing/`, `qa/`, `cloze/`, `disambiguation/`, `classification/`, `mlama/` in a folder.

    ValueError when `pages` is below 50; OSError when a file cannot be written. Worlds of a few hundred pages have fewer
    facts, and give fewer examples.
    """
    world, folder = build_world(seed, pages), Path(folder)
    for split in SPLITS:
        made = {name: gather(world, seed, split, name) for name in MAKERS}
        write_json(folder / f"relation/{split}.json", numbered(made["relation"], "id", f"{split}-"))
        write_json(folder / f"typing/{split}.json", made["typing"])
        write_json(folder / f"qa/{split}-v1.1.json", squad(made["qa"], split))
        cloze = numbered(made["cloze"], "id", f"{split}-")
        for example in cloze:
            example["qas"][0]["id"] = f"{example['id']}-query"
        write_json(folder / f"cloze/{split}.json", {"version": "1.0", "data": cloze})
        write_wned(folder / "disambiguation", world, split, made["disambiguation"])
        for name, key in JGLUE_IDS.items():
            rows = numbered(made[name], key, None if name == "choice" else "")
            write_json(folder / f"classification/{name}/{split}.json", rows, jsonl=True)
    write_mlama(folder / "mlama" / "en", world, seed)
