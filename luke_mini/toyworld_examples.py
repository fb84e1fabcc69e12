"""Examples for every task about the world of the built-in encyclopedia. Their files: `toyworld_tasks.py`.

In: the world, a random stream, a split. Out: one example as plain data, or None where a fact is missing or a name not
clear: the next draw may do.

Every maker but that of numbers makes two sorts. In one the wording tells the answer: random weights can learn that. In
the other it takes knowledge of the names ("Some people prefer Hesknor College to Fenlan"): then a name belongs to one
entity only.
Training examples are about the first third of the regions, the others mostly about the rest: what a model can know of
their names, it knows from the encyclopedia. A gold answer is a fact of the world; nothing that holds is called wrong.
Left out on purpose: wrong labels, mentions without an article, languages other than English.
"""

import re
from random import Random

from luke_mini import toyworld_questions as questions
from luke_mini import toyworld_text as text
from luke_mini.toyworld import TOKEN, Mention, Namer, Parts, encyclopedia_namer, reported_region, sentence, story
from luke_mini.toyworld_facts import TYPES, Entity, World, near, number, pick, shuffled, upper_first
from luke_mini.toyworld_questions import FACTS, Fact

NER_TYPES = {"PER": "PERSON", "LOC": "LOCATION", "ORG": "ORGANIZATION", "MISC": "MISC"}
PROBES = 80  # of a property, at most
ONE, TWO, ASIDE = (lines.strip().split("\n") for lines in (questions.ONE, questions.TWO, questions.ASIDE))
KINDS = list(questions.FINE_TYPES)


# ---- names, facts, sentences

def clear(world: World, entity: Entity) -> str:
    """The shortest name that is nobody else's; "" if it has none."""
    return next((name for name in reversed(entity.names) if len(world.senses[name]) == 1), "")


def clearly(world: World) -> Namer:
    return lambda entity, slot: Mention(entity, clear(world, entity) or entity.names[0])


def loosely(rng: Random) -> Namer:
    return lambda entity, slot: Mention(entity, pick(rng, entity.names))


def staged(world: World, rng: Random, template: str, name: Namer, *cast: Entity) -> Parts:
    """A sentence about given entities: they fill {a}, {b} and {c}."""
    scene = Entity("scene", "", "", "", [""], dict(zip("abc", cast)))
    return sentence(world, rng, template, scene, name)


def related(one: Entity, other: Entity) -> bool:
    """Is any fact of either the other one?"""
    return any(fact is b or (isinstance(fact, list) and b in fact)
               for a, b in ((one, other), (other, one)) for fact in a.facts.values())


def facts_of(entity: Entity) -> list[tuple[str, Fact]]:
    """The facts that can be told and asked, with their relation."""
    return [(relation, fact) for (kind, relation), fact in FACTS.items()
            if kind == entity.kind and isinstance(entity.facts.get(relation), Entity)]


def some(world: World, rng: Random, split: str, kind: str, relation: str = "") -> Entity:
    """An entity of a kind (or noun) that the split reports about, if possible with a name of its own and the fact."""
    for _ in range(50):
        entity = near(world, rng, kind, reported_region(world, rng, split), 1)
        if clear(world, entity) and (not relation or isinstance(entity.facts.get(relation), Entity)):
            break
    return entity


def stranger(world: World, rng: Random, split: str, kind: str, *to: Entity) -> Entity | None:
    """An entity of a kind, from another region, without a fact in common with the given ones."""
    entity = some(world, rng, split, kind)
    apart = all(entity is not one and not related(entity, one) and
                entity.facts.get("region", entity) is not one.facts.get("region", one) for one in to)
    return entity if apart and clear(world, entity) else None


def with_fact(world: World, rng: Random, split: str, keys: list[tuple[str, str]]) -> tuple[Entity, str, Fact] | None:
    """An entity with one of the facts, each fact as often as the others."""
    kind, relation = pick(rng, keys)
    subject = some(world, rng, split, kind, relation)
    return (subject, relation, FACTS[kind, relation]) if isinstance(subject.facts.get(relation), Entity) else None


def spelled(parts: Parts) -> tuple[str, list[tuple[Mention, int, int]]]:
    """The sentence and its mentions with half-open characters."""
    out, mentions = "", []
    for part in parts:
        surface = part.surface if isinstance(part, Mention) else part
        if isinstance(part, Mention):
            mentions.append((part, len(out), len(out) + len(surface)))
        out += surface
    return out, mentions


def tokenized(parts: Parts) -> tuple[list[str], dict[Entity, tuple[int, int]]]:
    """The words of a sentence; entity -> half-open words of its first mention."""
    words, spans = [], {}
    for part in parts:
        found = TOKEN.findall(part.surface if isinstance(part, Mention) else part)
        if isinstance(part, Mention):
            spans.setdefault(part.entity, (len(words), len(words) + len(found)))
        words += found
    return words, spans


def joined(sentences: list[Parts]) -> Parts:
    return [part for parts in sentences for part in [*parts, " "]][:-1]


# ---- relation classification: TACRED

ASKED = [key for key, fact in FACTS.items() if fact.label]


def relation_example(world: World, rng: Random, split: str) -> dict | None:
    """Half of them without a relation: an onlooker beside a stated fact, two of any kind, two whose types would fit."""
    if not (found := with_fact(world, rng, split, ASKED)):
        return None
    subject, relation, fact = found
    value, label, chance = subject.facts[relation], fact.label, rng.random()
    if chance < 0.08:
        parts = sentence(world, rng, pick(rng, fact.says), subject, loosely(rng))
    elif chance < 0.28:
        parts = sentence(world, rng, pick(rng, ASIDE) % fact.clause, subject, loosely(rng))
        others = [part.entity for part in parts if isinstance(part, Mention) and part.entity not in (subject, value)]
        if chance >= 0.18:
            value, label = others[0] if others else None, "no_relation"
    else:
        if chance >= 0.66:
            kind = value.kind if chance < 0.75 else pick(rng, KINDS)
            value, label = stranger(world, rng, split, kind, subject), "no_relation"
        if value is None or not clear(world, value):
            return None
        parts = staged(world, rng, pick(rng, TWO), clearly(world), *shuffled(rng, [subject, value]))
    if not parts or value is None or labels_between(subject, value) != {label} - {"no_relation"}:
        return None
    return tacred(parts, subject, value, label)


def labels_between(subject: Entity, value: Entity) -> set[str]:
    """Every relation that holds, told or not: no label of TACRED's form may leave another true one out."""
    held = {fact.label for relation, fact in facts_of(subject) if subject.facts[relation] is value}
    return held or ({""} if related(subject, value) else set())


def tacred(parts: Parts, subject: Entity, value: Entity, label: str) -> dict:
    words, spans = tokenized(parts)
    example = {"relation": label, "token": words}
    for role, entity in (("subj", subject), ("obj", value)):
        start, end = spans[entity]
        example |= {f"{role}_start": start, f"{role}_end": end - 1, f"{role}_type": NER_TYPES[TYPES[entity.kind]]}
    return example


# ---- entity typing: Open Entity

def typing_example(world: World, rng: Random, split: str) -> dict | None:
    kind = pick(rng, [*questions.FINE_TYPES, "person", "person"])  # there are many jobs
    subject = some(world, rng, split, kind)
    told = [*text.NEWS.get(kind, "").strip().split("\n")] if kind in text.NEWS else []
    told += [says for (of, _), fact in FACTS.items() if of == kind for says in fact.says]
    if rng.random() < 0.25:
        parts = sentence(world, rng, pick(rng, told), subject, loosely(rng))
    elif clear(world, subject):
        parts = staged(world, rng, pick(rng, ONE), clearly(world), subject)
    else:
        return None
    words, spans = tokenized(parts)
    if subject not in spans:
        return None
    start, end = spans[subject]
    begin = len(" ".join([*words[:start], ""]))
    return {"sent": " ".join(words), "start": begin, "end": begin + len(" ".join(words[start:end])),
            "labels": labels_of(subject)}  # fmt: skip


def labels_of(entity: Entity) -> list[str]:
    return list(dict.fromkeys([*questions.FINE_TYPES[entity.kind], entity.noun]))


# ---- question answering: SQuAD 1.1

def letter_cast(world: World, rng: Random, subject: Entity) -> list[Entity]:
    """Three entities from the facts of the subject, of three kinds, each with a name of its own; or fewer."""
    values = [pick(rng, value) if isinstance(value, list) else value for value in subject.facts.values()]
    values = [value for value in values if isinstance(value, Entity) and value.kind in questions.CALLED
              and value is not subject]
    by_kind = {value.kind: value for value in shuffled(rng, values) if clear(world, value)}
    return list(by_kind.values())[:3]


def qa_example(world: World, rng: Random, split: str) -> dict | None:
    """A paragraph about an entity: a letter that names three others, and facts that are stated; questions about both.

    The letter says nothing: who is asked for the club in it must know which of the three is one.
    """
    subject = some(world, rng, split, pick(rng, "person person firm club town product work school".split()))
    name, cast = encyclopedia_namer(rng, subject), letter_cast(world, rng, subject)
    if len(cast) < 3:
        return None
    asked = []  # of each sentence: itself, questions with the entities that answer them
    for relation, fact in shuffled(rng, facts_of(subject))[:3]:
        question = pick(rng, fact.asks).format(subject.names[0])
        told = sentence(world, rng, pick(rng, fact.says), subject, name)
        asked.append((told, [(question, subject.facts[relation])] * (rng.random() < 0.7)))
    letter = [(pick(rng, questions.ASK_LETTER) % questions.CALLED[entity.kind], entity) for entity in cast[:2]]
    asked.insert(number(rng, 1, len(asked)), (staged(world, rng, questions.LETTER, clearly(world), *cast), letter))
    context, qas = "", []
    for parts, wanted in asked:
        told, mentions = spelled(parts)
        for question, entity in wanted:
            surface, start = next((one.surface, at) for one, at, _ in mentions if one.entity is entity)
            qas.append({"question": question, "answers": [{"text": surface, "answer_start": len(context) + start}]})
        context += told + " "
    return {"title": subject.title.replace(" ", "_"), "context": context.rstrip(), "qas": qas}


# ---- cloze: ReCoRD

PROBED = [key for key in FACTS if key[0] != "region"]


def cloze_example(world: World, rng: Random, split: str) -> dict | None:
    """A passage that names four, and a fact of one of them in which another is cut out.

    Sometimes the passage states the fact; otherwise the types of the four tell, or only the fact itself.
    """
    if not (found := with_fact(world, rng, split, PROBED)):
        return None
    subject, relation, fact = found
    value, (query, *stated) = subject.facts[relation], shuffled(rng, fact.says)
    others = [stranger(world, rng, split, value.kind if rng.random() < 0.3 else pick(rng, KINDS), subject, value)
              for _ in range(2)]
    cast = [subject, value, *others]
    if None in others or others[0] is others[1] or not all(clear(world, entity) for entity in cast):
        return None
    name = clearly(world)
    sentences = [staged(world, rng, pick(rng, TWO), name, *pair) for pair in pairs(rng, cast)]
    if stated and rng.random() < 0.25:
        sentences.insert(number(rng, 0, 2), sentence(world, rng, pick(rng, stated), subject, name))
    passage, spans = "", []
    for i, parts in enumerate(sentences):
        told, mentions = spelled(parts)
        passage += "" if i == 0 else "\n@highlight\n" if i >= len(sentences) - 2 else " "
        spans += [(len(passage) + start, len(passage) + end - 1, one.entity) for one, start, end in mentions]
        passage += told
    hidden = sentence(world, rng, query, subject, lambda entity, slot: Mention(
        entity, "@placeholder" if entity is value else name(entity, slot).surface))
    return {"passage": {"text": passage, "entities": [{"start": start, "end": end} for start, end, _ in spans]},
            "qas": [{"query": spelled(hidden)[0], "answers": [
                {"start": start, "end": end, "text": passage[start:end + 1]}
                for start, end, entity in spans if entity is value]}]}  # fmt: skip


def pairs(rng: Random, cast: list[Entity]) -> list[tuple[Entity, Entity]]:
    """Four pairs; each of the cast comes up at least once, none is told to belong together."""
    out = [tuple(shuffled(rng, cast)[:2]) for _ in range(2)]
    a, b, c, d = shuffled(rng, cast)
    return shuffled(rng, [(a, b), (c, d), *out])


# ---- disambiguation: WNED

def story_example(world: World, rng: Random, split: str) -> tuple[str, list[tuple[str, str, int]]] | None:
    """A news story, and for each mention surface, title of its article and offset in characters."""
    parts = story(world, rng, reported_region(world, rng, split), full=0.1)
    told, mentions = spelled(joined(parts))
    found = [(one.surface, one.entity.title, start) for one, start, _ in mentions if TYPES[one.entity.kind]]
    return (told + "\n", found) if len(parts) >= 4 else None


# ---- sentences and pairs: JGLUE

def single_example(world: World, rng: Random, split: str) -> dict | None:
    """What a sentence is about: sport, business, places, culture."""
    topic = pick(rng, list(questions.TOPICS))
    subject = some(world, rng, split, pick(rng, questions.TOPICS[topic]))
    if rng.random() < 0.25 and subject.kind in text.NEWS:
        parts = sentence(world, rng, pick(rng, text.NEWS[subject.kind].strip().split("\n")), subject, clearly(world))
    else:
        parts = staged(world, rng, pick(rng, ONE), clearly(world), subject)
    if not clear(world, subject):
        return None
    return {"sentence": spelled(parts)[0], "label": topic} if parts else None


def pair_example(world: World, rng: Random, split: str) -> dict | None:
    """Does the second sentence follow, is it false, or is it news?

    A fact is told again in other words, or the kind of the subject is told; where it is false, the value comes from
    another region, the kind is another.
    """
    label = pick(rng, ["entailment", "contradiction", "neutral"])
    if not (found := with_fact(world, rng, split, PROBED)):
        return None
    subject, relation, fact = found
    value, name = subject.facts[relation], clearly(world)
    wrong = stranger(world, rng, split, value.kind, subject, value)
    (first, second), by_kind = shuffled(rng, fact.says)[:2], rng.random() < 0.5
    if not clear(world, subject) or not wrong:
        return None
    premise = (staged(world, rng, pick(rng, ONE), name, subject) if by_kind else
               sentence(world, rng, first, subject, name))
    if label == "neutral":
        lines = text.NEWS.get(subject.kind, questions.NEWS_RIVER).strip().split("\n")
        hypothesis = sentence(world, rng, pick(rng, lines), subject, name)
    elif by_kind:
        kinds = [kind for kind in KINDS if kind != subject.kind]
        kind = subject.kind if label == "entailment" else pick(rng, kinds)
        hypothesis = staged(world, rng, "{a} is a %s." % questions.CALLED[kind], name, subject)
    else:
        hypothesis = sentence(world, rng, second, subject, lambda entity, slot: name(
            wrong if entity is value and label == "contradiction" else entity, slot))
    if not premise or not hypothesis:
        return None
    return {"sentence1": spelled(premise)[0], "sentence2": spelled(hypothesis)[0], "label": label}


def regression_example(world: World, rng: Random, split: str) -> dict | None:
    """How big are the things that the two sentences are about, taken together? From 0, two books, to 5, two regions."""
    one, other = (some(world, rng, split, pick(rng, KINDS)) for _ in range(2))
    if one is other or not clear(world, one) or not clear(world, other):
        return None
    told = [spelled(staged(world, rng, pick(rng, ONE), clearly(world), entity))[0] for entity in (one, other)]
    return {"sentence1": told[0], "sentence2": told[1], "label": questions.BIG[one.kind] + questions.BIG[other.kind]}


def choice_example(world: World, rng: Random, split: str) -> dict | None:
    """A fact that is asked for, or a kind; five names of which one is right. They tell it only sometimes."""
    if rng.random() < 0.5:
        right = some(world, rng, split, pick(rng, KINDS))
        question = pick(rng, questions.ASK_CHOICE) % questions.CALLED[right.kind]
        wrong = [stranger(world, rng, split, kind) for kind in shuffled(rng, KINDS) if kind != right.kind]
    else:
        if not (found := with_fact(world, rng, split, PROBED)):
            return None
        subject, relation, fact = found
        right = subject.facts[relation]
        question = pick(rng, fact.asks).format(clear(world, subject) or subject.names[0])
        others = [kind for kind in shuffled(rng, KINDS) if kind not in (right.kind, subject.kind)]
        wrong = [stranger(world, rng, split, kind, subject) for kind in [right.kind] * (rng.random() < 0.5) + others]
    five = [right, *filter(None, wrong)][:5]
    if len(five) < 5 or not clear(world, right):
        return None
    order = shuffled(rng, five)
    names = [entity.names[0] if rng.random() < 0.3 else clear(world, entity) for entity in order]
    return {"question": upper_first(question), **{f"choice{i}": name for i, name in enumerate(names)},
            "label": order.index(right)}  # fmt: skip


# ---- probes: mLAMA

def probes(world: World, seed: int) -> tuple[dict[str, str], dict[str, list[tuple[str, str]]]]:
    """Property -> template, and property -> pairs (subject, object); only of entities that are called as titled."""
    plain = [entity for entity in world.entities.values() if entity.title == entity.names[0]]
    templates, found = dict(questions.NOUN_PROBES), {}
    for entity in plain:
        if entity.kind in KINDS:
            found.setdefault("P106" if entity.kind == "person" else "P31", []).append((entity.title, entity.noun))
        for relation, fact in facts_of(entity):
            value = entity.facts[relation]
            if fact.property and value.title == value.names[0]:
                found.setdefault(fact.property, []).append((entity.title, value.title))
    for (_, relation), fact in FACTS.items():
        line = re.sub(r"\{(me)?\}", "[X]", fact.says[questions.REVERSED.get(fact.property, 0)])
        if fact.property in found:
            line = line.replace(f"{{{relation}}}", "[Y]").replace("{form}", "work").replace(".", " .")
            templates.setdefault(fact.property, line)
    return templates, {name: evenly(Random(f"{seed} mlama {name}"), found[name]) for name in templates}


def evenly(rng: Random, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Up to PROBES of the pairs, no object much more often than others: always naming the commonest must not pay."""
    limit = -(-PROBES // len({value for _, value in pairs}))
    counts, kept = {}, []
    for subject, value in shuffled(rng, pairs):
        counts[value] = counts.get(value, 0) + 1
        if counts[value] <= limit:
            kept.append((subject, value))
    return kept[:PROBES]
