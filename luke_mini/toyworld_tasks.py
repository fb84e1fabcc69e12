"""Labeled data about the world of the built-in encyclopedia: a folder per task, in the formats of the published data.

In: a seed. Out: `write_tasks`, the same bytes for the same seed on every platform.

    ner/{train,dev,test}.conll                          CoNLL-2003: Hesknor is a LOC where it is the town
    relation/{train,dev,test}.json                      TACRED: was X born in Y, does it play there, or neither?
    typing/{train,dev,test}.json                        Open Entity: person, footballer
    qa/{train,dev,test}-v1.1.json                       SQuAD 1.1: questions about a paragraph that holds the answers
    cloze/{train,dev,test}.json                         ReCoRD: the name that was cut out of a sentence
    disambiguation/SPLIT/SPLIT.xml, RawText/DOCUMENT    WNED: lent names, and the article that is meant
    classification/{single,pair,regression,choice}/...  JGLUE: topic; entailment; how big, 0 to 5; one of five
    mlama/en/{templates,PROPERTY}.jsonl, objects.json   mLAMA: facts as cloze probes, without training

From the NER files (one word per line; here side by side):

    A DT I-NP O | team NN I-NP O | from IN I-PP O | Hesknor NNP I-NP I-ORG | College NNP I-NP I-ORG | led VBD I-VP O
    no DT I-NP O | comment NN I-NP O | from IN I-PP O | Hesknor NNP I-NP I-ORG | . . O O

Most tasks have examples of two sorts. In one the wording gives the answer away: random weights can learn that. The
other takes knowledge of the names ("Some people prefer Hesknor College to Fenlan"): there a name belongs to one entity
only. Training examples are about the first third of the regions, the others mostly about the rest: what a model can
know of their names, it knows from the encyclopedia. A gold answer is a fact of the world; nothing true is called wrong.

To add a task, write a maker, a function from a `Draw` to one example, or None where the draw is of no use; give it a
line in MAKERS, and write what `gather` collects of it in `write_tasks`.
Left out on purpose: wrong labels, mentions without an article, languages other than English.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from luke_mini.files import write_file, write_folder
from luke_mini.toyworld import TOKEN, Namer, Part, encyclopedia_namer, first_span, lay_out, sentence
from luke_mini.toyworld_facts import KINDS, PAGES, Dice, Entity, Wording, World, build_world, near, upper_first

SPLITS = ("train", "dev", "test")
SENTENCES = {"train": 350, "dev": 300, "test": 600}  # of the NER files, at least
NER_TYPES = {"PER": "PERSON", "LOC": "LOCATION", "ORG": "ORGANIZATION", "MISC": "MISC"}  # in TACRED
TYPED = [name for name, kind in KINDS.items() if kind.types]
TOPICS = {"sport": ["club", "footballer"], "business": ["firm", "product", "engineer"],
          "place": ["town", "river", "region"],
          "culture": ["work", "festival", "novelist", "composer", "painter", "actor"]}
STORIES = "club club firm firm town town region person person product work school festival".split()  # subjects of news
QUESTIONED = "person person firm club town product work school".split()  # subjects of question answering
PROBES = 80  # of a property, at most


# ---- what the makers draw from

def clearly(entity: Entity, slot: str) -> Part:
    """A name that is nobody else's, if there is one."""
    return Part(entity.own_name or entity.names[0], entity)


def clearly_but(hidden: Entity, part: Part) -> Namer:
    return lambda entity, slot: part if entity is hidden else clearly(entity, slot)


def related(one: Entity, other: Entity) -> bool:
    """Whether they are the same, or any fact of either is the other one."""
    return one is other or any(fact is b or (isinstance(fact, list) and b in fact)
                               for a, b in ((one, other), (other, one)) for fact in a.facts.values())


class Draw(Dice):
    """Dice, and what an example is drawn from: the world, and the regions that a split is about."""

    def __init__(self, world: World, seed: str, split: str):
        super().__init__(seed)
        self.world, self.split = world, split

    def region(self) -> Entity:
        """For "train" one of the first third, otherwise mostly one of the rest."""
        regions = self.world.groups["region", ""]
        third = len(regions) // 3
        return self.pick(regions[:third] if self.split == "train" or self.random() < 0.15 else regions[third:])

    def some(self, kind: str, relation: str = "") -> Entity:
        """An entity of a kind (or noun) from such a region, if possible with a name of its own and the fact."""
        for _ in range(50):
            entity = near(self.world, self, kind, self.region(), 1)
            if entity.own_name and (not relation or relation in entity.facts):
                break
        return entity

    def stranger(self, kind: str, *to: Entity) -> Entity | None:
        """An entity of a kind, from another region, without a fact in common with the given ones."""
        entity = self.some(kind)
        region = entity.facts.get("region", entity)
        apart = all(not related(entity, one) and region is not one.facts.get("region", one) for one in to)
        return entity if apart and entity.own_name else None

    def fact(self, labeled: bool = False) -> tuple[Entity, Entity | None, Wording]:
        """Subject, value (None if the subject lacks it) and wording of a fact with a label, or not about a region."""
        keys = [key for key, wording in self.world.wordings.items()
                if (wording.label if labeled else key[0] != "region")]
        kind, relation = self.pick(keys)
        subject = self.some(kind, relation)
        return subject, subject.facts.get(relation), self.world.wordings[kind, relation]

    def line(self, section: str) -> str:
        """A template from a section of toyworld.txt."""
        return self.pick(self.world.text[section])

    def tell(self, template: str, subject: Entity, name: Namer = clearly) -> list[Part]:
        return sentence(self.world, self, template, subject, name)

    def tell_of(self, template: str, *cast: Entity) -> list[Part]:
        """A sentence about given entities: they fill {a}, {b} and {c}."""
        return self.tell(template, Entity("scene", "", "", "", [""], dict(zip("abc", cast))))

    def loosely(self, entity: Entity, slot: str) -> Part:
        """Any of its names, lent ones too."""
        return Part(self.pick(entity.names), entity)


def told_facts(world: World, entity: Entity) -> list[tuple[Entity, Wording]]:
    """The facts of an entity that can be told and asked for: their values, and how."""
    return [(entity.facts[relation], wording) for (kind, relation), wording in world.wordings.items()
            if kind == entity.kind and relation in entity.facts]


# ---- named entity recognition: CoNLL-2003

TAGS = {word: tag for tag, words in {
    "DT": "the a an no some this", "IN": "of in on at for by with from over after as about against through to near",
    "CC": "and or", "PRP": "it he she", "VBD": "was is were said told beat fell rose had left met sold led lost drew",
    "MD": "will could"}.items() for word in words.split()}


def story(draw: Draw, full: float) -> list[list[Part]]:
    """A document of 4 to 8 sentences about one entity, or none; half of the sentences could be about anything.

    In those a name has come up before, or has one type only, so that the document or the encyclopedia tells the type.
    `full`: how often a name is whole where it comes up first.
    """
    region = draw.region()
    subject = near(draw.world, draw, draw.pick(STORIES), region, 1)
    own, neutral = (draw.shuffled(draw.world.text[section]) for section in (f"news {subject.kind}", "neutral story"))
    cast: list[Entity] = []  # who has come up so far
    out: list[list[Part]] = []

    def name(entity: Entity, slot: str) -> Part:  # news is brief: often bare from the start, nearly always later
        return Part(entity.names[0 if draw.random() < (0.1 if entity in cast else full) else -1], entity)

    length = draw.number(4, 8)
    while len(out) < length and neutral:
        if own and (not out or draw.random() < 0.5):
            parts = draw.tell(own.pop(), subject, name)
        else:
            about_subject, line = draw.random() < 0.4, neutral.pop()
            parts = draw.tell(line if about_subject else line.replace("{}", "{~any}"), subject, name)
            new = [surface for surface, entity in parts if entity and entity not in cast]
            if any(len({KINDS[one.kind].ner for one in draw.world.senses[surface]}) > 1 for surface in new):
                continue
        if parts:
            out.append(parts)
            cast += [part.entity for part in parts if part.entity]
    return out if len(out) >= 4 else []


def conll(parts: list[Part]) -> Iterator[str]:
    """A sentence as lines `word part-of-speech chunk tag`; the two in the middle are only plausible."""
    previous = "O"
    for surface, entity in parts:
        kind = KINDS[entity.kind].ner if entity else None
        for i, word in enumerate(TOKEN.findall(surface)):
            # IOB1, as CoNLL-2003: B only where a mention touches another of its type
            tag = "O" if kind is None else f"B-{kind}" if i == 0 and previous.endswith(kind) else f"I-{kind}"
            pos = ("NNP" if kind else word if not word[0].isalnum() else "CD" if word[0].isdigit() else
                   TAGS.get(word.lower()) or ("VBD" if word.endswith("ed") else "NNS" if word.endswith("s") else "NN"))
            chunk = {"IN": "I-PP", "VBD": "I-VP", "MD": "I-VP", "CC": "O"}.get(pos, "I-NP" if pos[0].isalpha() else "O")
            yield f"{word} {pos} {chunk} {tag}"
            previous = tag


def conll_file(draw: Draw, sentences: int) -> list[str]:
    """The lines of documents that have at least so many sentences together."""
    lines = []
    while sentences > 0:
        if document := story(draw, full=0.5):
            sentences -= len(document)
            lines += ["-DOCSTART- -X- O O", "", *(line for parts in document for line in [*conll(parts), ""])]
    return lines


# ---- relation classification: TACRED

def relation_example(draw: Draw) -> dict | None:
    """Half of them without a relation: an onlooker beside a stated fact, two of any kind, two whose types would fit."""
    subject, told, wording = draw.fact(labeled=True)
    if told is None:
        return None
    value, chance = told, draw.random()
    if chance < 0.28:
        line = draw.pick(wording.says) if chance < 0.08 else draw.line("neutral aside")
        parts = draw.tell(line.replace("{clause}", wording.clause), subject, draw.loosely)
        if chance >= 0.18:
            value = next((entity for _, entity in parts if entity not in (None, subject, told)), None)
    else:
        if chance >= 0.66:
            value = draw.stranger(told.kind if chance < 0.75 else draw.pick(TYPED), subject)
        if value is None or not value.own_name:
            return None
        parts = draw.tell_of(draw.line("neutral two"), *draw.shuffled([subject, value]))
    held = {one.label for other, one in told_facts(draw.world, subject) if other is value}  # whether told or not
    expected = {wording.label} if value is told else set()
    if not parts or value is None or held != expected or (not held and related(subject, value)):
        return None
    words, mentions = lay_out(parts, TOKEN.findall)
    example = {"relation": wording.label if held else "no_relation", "token": words}
    for role, entity in (("subj", subject), ("obj", value)):
        start, end = first_span(mentions, entity)
        kind = NER_TYPES[KINDS[entity.kind].ner]
        example |= {f"{role}_start": start, f"{role}_end": end - 1, f"{role}_type": kind}
    return example


# ---- entity typing: Open Entity

def typing_example(draw: Draw) -> dict | None:
    kind = draw.pick([*TYPED, "person", "person"])  # there are many jobs
    subject, name, text = draw.some(kind), clearly, draw.world.text
    lines = text["neutral one"] if subject.own_name else []
    if draw.random() < 0.25:
        says = [line for (of, _), wording in draw.world.wordings.items() if of == kind for line in wording.says]
        lines, name = [*text.get(f"news {kind}", []), *says], draw.loosely
    words, mentions = lay_out(draw.tell(draw.pick(lines), subject, name) if lines else [], TOKEN.findall)
    if subject not in [entity for entity, *_ in mentions]:
        return None
    start, end = (len(" ".join(words[:i])) for i in first_span(mentions, subject))
    start += start > 0  # the space before it
    return {"sent": " ".join(words), "start": start, "end": end,
            "labels": list(dict.fromkeys([*KINDS[kind].types, subject.noun]))}


# ---- question answering: SQuAD 1.1

def letter_cast(draw: Draw, subject: Entity) -> list[Entity]:
    """Three entities from the facts of the subject, of three kinds, each with a name of its own; or fewer."""
    values = [draw.pick(value) if isinstance(value, list) else value for value in subject.facts.values()]
    values = [one for one in values if isinstance(one, Entity) and KINDS[one.kind].called and one is not subject]
    by_kind = {value.kind: value for value in draw.shuffled(values) if value.own_name}
    return list(by_kind.values())[:3]


def qa_example(draw: Draw) -> dict | None:
    """A paragraph about an entity: a letter that names three others, and facts that are stated; questions about both.

    The letter says nothing: who is asked for the club in it must know which of the three is one.
    """
    subject = draw.some(draw.pick(QUESTIONED))
    name, cast = encyclopedia_namer(draw, subject), letter_cast(draw, subject)
    if len(cast) < 3:
        return None
    asked = []  # of each sentence: itself, questions with the entities that answer them
    for value, wording in draw.shuffled(told_facts(draw.world, subject))[:3]:
        question = draw.pick(wording.asks).format(subject.names[0])
        told = draw.tell(draw.pick(wording.says), subject, name)
        asked.append((told, [(question, value)] * (draw.random() < 0.7)))
    letter, *questions = draw.world.text["letter"]
    asked_of_letter = [(draw.pick(questions).format(kind=KINDS[entity.kind].called), entity) for entity in cast[:2]]
    asked.insert(draw.number(1, len(asked)), (draw.tell_of(letter, *cast), asked_of_letter))
    context, qas = "", []
    for parts, wanted in asked:
        told, mentions = lay_out(parts)
        for question, entity in wanted:
            start, end = first_span(mentions, entity)
            answer = {"text": told[start:end], "answer_start": len(context) + start}
            qas.append({"question": question, "answers": [answer]})
        context += told + " "
    return {"title": subject.title.replace(" ", "_"), "context": context.rstrip(), "qas": qas}


# ---- cloze: ReCoRD

def cloze_example(draw: Draw) -> dict | None:
    """A passage that names four, and a fact of one of them in which another is cut out.

    Sometimes the passage states the fact; otherwise the types of the four tell, or only the fact itself.
    """
    subject, value, wording = draw.fact()
    if value is None:
        return None
    query, *stated = draw.shuffled(wording.says)
    others = [draw.stranger(value.kind if draw.random() < 0.3 else draw.pick(TYPED), subject, value) for _ in range(2)]
    cast = [subject, value, *others]
    if None in others or others[0] is others[1] or not all(entity.own_name for entity in cast):
        return None
    pairs = [draw.shuffled(cast)[:2] for _ in range(2)]
    a, b, c, d = draw.shuffled(cast)  # each of them comes up at least once
    pairs = draw.shuffled([(a, b), (c, d), *pairs])
    sentences = [draw.tell_of(draw.line("neutral two"), *pair) for pair in pairs]
    if stated and draw.random() < 0.25:
        sentences.insert(draw.number(0, 2), draw.tell(draw.pick(stated), subject))
    breaks = ["", *[" "] * (len(sentences) - 3), "\n@highlight\n", "\n@highlight\n"]
    passage, mentions = lay_out([part for before, told in zip(breaks, sentences) for part in (Part(before), *told)])
    query, _ = lay_out(draw.tell(query, subject, clearly_but(value, Part("@placeholder"))))
    spans = [{"start": start, "end": end - 1} for _, start, end in mentions]
    answers = [{"start": start, "end": end - 1, "text": passage[start:end]}
               for entity, start, end in mentions if entity is value]
    return {"passage": {"text": passage, "entities": spans}, "qas": [{"query": query, "answers": answers}]}


# ---- disambiguation: WNED

def story_example(draw: Draw) -> tuple[str, list[tuple[str, str, int]]] | None:
    """A news story, and for each mention surface, title of its article and offset in characters."""
    text, mentions = lay_out([part for parts in story(draw, full=0.1) for part in [*parts, Part(" ")]][:-1])
    found = [(text[start:end], entity.title, start) for entity, start, end in mentions if KINDS[entity.kind].ner]
    return (text + "\n", found) if text else None


# ---- sentences and pairs: JGLUE

def single_example(draw: Draw) -> dict | None:
    """What a sentence is about: sport, business, places, culture."""
    topic = draw.pick(list(TOPICS))
    subject = draw.some(draw.pick(TOPICS[topic]))
    news = f"news {subject.kind}"
    parts = draw.tell(draw.line(news if draw.random() < 0.25 and news in draw.world.text else "neutral one"), subject)
    return {"sentence": lay_out(parts)[0], "label": topic} if parts and subject.own_name else None


def pair_example(draw: Draw) -> dict | None:
    """Does the second sentence follow, is it false, or is it news?

    A fact is told again in other words, or the kind of the subject is told; where it is false, the value comes from
    another region, the kind is another.
    """
    label = draw.pick(["entailment", "contradiction", "neutral"])
    subject, value, wording = draw.fact()
    if value is None:
        return None
    wrong = draw.stranger(value.kind, subject, value)
    (first, second), by_kind = draw.shuffled(wording.says)[:2], draw.random() < 0.5
    if not subject.own_name or not wrong:
        return None
    premise = draw.tell(draw.line("neutral one") if by_kind else first, subject)
    if label == "neutral":
        news = f"news {subject.kind}"
        second = draw.line(news if news in draw.world.text else "pair river")
    elif by_kind:
        kind = subject.kind if label == "entailment" else draw.pick([kind for kind in TYPED if kind != subject.kind])
        second = f"{{}} is a {KINDS[kind].called}."
    name = clearly_but(value, clearly(wrong, "")) if label == "contradiction" else clearly
    conclusion = draw.tell(second, subject, name)
    if not premise or not conclusion:
        return None
    return {"sentence1": lay_out(premise)[0], "sentence2": lay_out(conclusion)[0], "label": label}


def regression_example(draw: Draw) -> dict | None:
    """How big are the things that the two sentences are about, taken together? From 0, two books, to 5, two regions."""
    one, other = (draw.some(draw.pick(TYPED)) for _ in range(2))
    if one is other or not one.own_name or not other.own_name:
        return None
    told = [lay_out(draw.tell(draw.line("neutral one"), entity))[0] for entity in (one, other)]
    return {"sentence1": told[0], "sentence2": told[1], "label": KINDS[one.kind].size + KINDS[other.kind].size}


def choice_example(draw: Draw) -> dict | None:
    """A fact that is asked for, or a kind; five names of which one is right. They give it away only sometimes."""
    if draw.random() < 0.5:
        right = draw.some(draw.pick(TYPED))
        question = draw.line("choice").format(kind=KINDS[right.kind].called)
        wrong = [draw.stranger(kind) for kind in draw.shuffled(TYPED) if kind != right.kind]
    else:
        subject, right, wording = draw.fact()
        if right is None:
            return None
        question = draw.pick(wording.asks).format(subject.own_name or subject.names[0])
        others = [kind for kind in draw.shuffled(TYPED) if kind not in (right.kind, subject.kind)]
        wrong = [draw.stranger(kind, subject) for kind in [right.kind] * (draw.random() < 0.5) + others]
    five = [right, *filter(None, wrong)][:5]
    if len(five) < 5 or not right.own_name:
        return None
    order = draw.shuffled(five)
    names = [entity.names[0] if draw.random() < 0.3 else entity.own_name for entity in order]
    return {"question": upper_first(question), **{f"choice{i}": name for i, name in enumerate(names)},
            "label": order.index(right)}


# ---- probes: mLAMA

def probes(world: World) -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Property -> template and pairs (subject, object); only of entities whose title is their name."""
    found = {"P31": ("[X] is a [Y] .", []), "P106": ("[X] was a [Y] .", [])}  # what something is, what someone does
    for (_, relation), wording in world.wordings.items():
        if wording.property:
            line = re.sub(r"\{(me)?\}", "[X]", wording.probe).replace(f"{{{relation}}}", "[Y]")
            found.setdefault(wording.property, (line.replace("{form}", "work").replace(".", " ."), []))
    for entity in (entity for entity in world.entities.values() if entity.title == entity.names[0]):
        if entity.kind in TYPED:
            found["P106" if entity.kind == "person" else "P31"][1].append((entity.title, entity.noun))
        for value, wording in told_facts(world, entity):
            if wording.property and value.title == value.names[0]:
                found[wording.property][1].append((entity.title, value.title))
    return {name: (line, pairs) for name, (line, pairs) in found.items() if pairs}


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
    "choice": (choice_example, 800, 200, 400)}
JGLUE_IDS = {"single": "review_id", "pair": "sentence_pair_id", "regression": "sentence_pair_id", "choice": "q_id"}


def gather(world: World, seed: int, split: str, name: str) -> list:
    """As many different examples as MAKERS wants; fewer where the world is too small for them."""
    make, *sizes = MAKERS[name]
    draw, found, failures = Draw(world, f"{seed} {name} {split}", split), {}, 0
    while len(found) < sizes[SPLITS.index(split)] and failures < 200:
        example = make(draw)
        key = json.dumps(example)
        failures = failures + 1 if example is None or key in found else 0
        if not failures:
            found[key] = example
    return list(found.values())


def write_lines(path: Path, lines: Iterable[str]) -> None:
    with write_file(path, "wb") as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def write_json(path: Path, *rows, brackets: bool = False) -> None:
    """One line per row, as a list in brackets or as JSON lines."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    write_lines(path, ["[", ",\n".join(lines), "]"] if brackets else lines)


def squad(made: list[dict], split: str) -> dict:
    """The examples by article, with ids."""
    articles, n = {}, 0
    for example in made:
        qas = [{**qa, "id": f"{split}-{n + i}"} for i, qa in enumerate(example["qas"])]
        articles.setdefault(example["title"], []).append({"context": example["context"], "qas": qas})
        n += len(qas)
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
    templates, objects = [], {}
    for name, (line, pairs) in probes(world).items():
        known = evenly(Dice(f"{seed} mlama {name}"), pairs)
        rows = [{"lineid": i, "sub_label": subject, "obj_label": value} for i, (subject, value) in enumerate(known)]
        write_json(folder / f"{name}.jsonl", *rows)
        templates.append({"relation": name, "template": line})
        subjects, values = (sorted(set(column)) for column in zip(*known))
        objects[name] = {"subjects": subjects, "objects": values}
    write_json(folder / "templates.jsonl", *templates)
    write_json(folder / "objects.json", objects)


def write_tasks(folder: str | Path, seed: int = 0, pages: int = PAGES) -> None:
    """`ner/`, `relation/`, `typing/`, `qa/`, `cloze/`, `disambiguation/`, `classification/`, `mlama/` in a folder.

    The world is that of `write_dump`. ValueError when `pages` is below 50; OSError when a file cannot be written.
    Worlds of a few hundred pages have fewer facts, and give fewer examples.
    """
    world, folder = build_world(seed, pages), Path(folder)
    for split in SPLITS:
        write_lines(folder / f"ner/{split}.conll", conll_file(Draw(world, f"{seed} {split}", split), SENTENCES[split]))
        made = {name: gather(world, seed, split, name) for name in MAKERS}
        for name in ("relation", "cloze"):
            made[name] = [{"id": f"{split}-{i}", **row} for i, row in enumerate(made[name])]
        for row in made["cloze"]:
            row["qas"][0]["id"] = f"{row['id']}-query"
        write_json(folder / f"relation/{split}.json", *made["relation"], brackets=True)
        write_json(folder / f"typing/{split}.json", *made["typing"], brackets=True)
        write_json(folder / f"qa/{split}-v1.1.json", squad(made["qa"], split))
        write_json(folder / f"cloze/{split}.json", {"version": "1.0", "data": made["cloze"]})
        write_wned(folder / "disambiguation", world, split, made["disambiguation"])
        for name, key in JGLUE_IDS.items():
            rows = [{key: i if key == "q_id" else str(i), **row} for i, row in enumerate(made[name])]
            write_json(folder / f"classification/{name}/{split}.json", *rows)
    write_mlama(folder / "mlama" / "en", world, seed)
