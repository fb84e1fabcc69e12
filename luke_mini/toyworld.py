"""The built-in encyclopedia: a fictional world, written as a real MediaWiki dump and as labeled data.

In: a seed. Out: `write_dump`, a pages-articles export (`.xml.bz2`); `write_ner`, CoNLL-2003 files about the same world
(the files of the other tasks: `toyworld_tasks.py`).
Same bytes for the same seed on every platform. So the whole path runs without a download, and shows what pretraining
is good for. From an article, and from the test file (one word per line; here side by side):

    '''Hesknor''' is a port in [[Ralrok]].
    == Culture and sport ==
    The football club [[Hesknor_United|Hesknor]] plays at Station Lane. [[Hesknor College]] stands on the hill.

    A DT I-NP O | team NN I-NP O | from IN I-PP O | Hesknor NNP I-NP I-ORG | College NNP I-NP I-ORG | led VBD I-VP O
    no DT I-NP O | comment NN I-NP O | from IN I-PP O | Hesknor NNP I-NP I-ORG | . . O O

A sentence is a template of `toyworld.txt` filled with facts of `toyworld_facts.py`: plain text and mentions. Two
renderers turn it into wikitext with links, or into words with tags. The tag is the sense: Hesknor is a LOC where it is
the town. News comes from a third of the regions in the training file, mostly from the rest in the others, and half of
its sentences fit a name of any type ("There was no comment from ..."): what a model can know, it knows from the
encyclopedia. Left out on purpose: languages other than English, spelling mistakes, discussion and user pages.
"""

import bz2
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from luke_mini.files import write_file
from luke_mini.toyworld_facts import KINDS, PAGES, Dice, Entity, World, build_world, near, upper_first

KEEP = 0.75  # share of the lines of a section that an article uses
SENTENCES = {"train": 350, "dev": 300, "test": 600}  # of the NER files, at least
STORIES = "club club firm firm town town region person person product work school festival".split()  # subjects of news


# ---- sentences: a template and the world give plain text and mentions

class Part(NamedTuple):
    surface: str
    entity: Entity | None = None  # the one mentioned, if any


Namer = Callable[[Entity, str], Part]  # (entity, slot) -> how it is called here
INNERMOST = re.compile(r"<([^<>\[\]]*)>|\[([^<>\[\]]*)\]")


def resolve(rng: Dice, template: str) -> str:
    """Decides every `<a|b>` and `[x]`, innermost first."""
    while match := INNERMOST.search(template):
        wording = rng.pick(match[1].split("|")) if match[1] is not None else match[2] if rng.random() < 0.5 else ""
        template = template[:match.start()] + wording + template[match.end():]
    return template


def follow(rng: Dice, subject: Entity, slot: str, used: list[Entity], last: dict[tuple[Entity, str], Entity]):
    """The value of a slot or None. `{clubs}` is a club new to the sentence, `{clubs.ground}` that club's ground."""
    value = subject
    for relation in slot.split("."):
        found = value.facts.get(relation)
        if isinstance(found, list):
            known = last.get((value, relation))
            if known is None or (slot.endswith(relation) and known in used):
                known = last[value, relation] = rng.pick([entity for entity in found if entity not in used] or [None])
            found = known
        if found is None:
            return None
        value = found
    return value


def fill(world: World, rng: Dice, template: str, subject: Entity) -> list[tuple[object, str]] | None:
    """Pairs (value, slot): text or an entity, and where it stood. None if a fact is missing or would come twice."""
    values, used, last = [], [subject], {}
    for i, piece in enumerate(re.split(r"\{(.*?)\}", resolve(rng, template))):
        if i % 2 == 0:
            value = piece
        elif piece in ("it", "its"):
            value = subject.facts.get(piece, piece)
        elif piece in ("", "me"):
            value = subject
        elif "-" in piece:
            value = str(rng.number(*map(int, piece.split("-"))))
        else:
            value = (near(world, rng, piece[1:], subject) if piece[0] == "~" else
                     follow(rng, subject, piece, used, last))
            if value is None or value in used:
                return None
            if isinstance(value, Entity):
                used.append(value)
            elif isinstance(value, int):
                value = f"{value:,}" if value > 9999 else str(value)  # the smaller ones are years
        values.append((value, piece))
    return values


def sentence(world: World, rng: Dice, template: str, subject: Entity, name: Namer) -> list[Part]:
    """One template as text and mentions; empty if the world lacks what it asks for."""
    parts = []
    for value, slot in fill(world, rng, template, subject) or fill(world, rng, template, subject) or []:
        part = name(value, slot) if isinstance(value, Entity) else Part(value)
        if part.surface == "." and parts[-1].entity and parts[-1].surface.endswith("."):
            continue  # "against Elwen F.C." ends in one full stop
        if parts and not part.entity and not parts[-1].entity:
            parts[-1] = Part(parts[-1].surface + part.surface)
        elif part.surface:
            parts.append(part)
    for i, (surface, entity) in enumerate(parts):
        if i == 0:
            parts[0] = Part(upper_first(surface), entity)
        elif entity and surface[0] in "AEIOUaeiou":
            parts[i - 1] = Part(re.sub(r"\b([Aa]) $", r"\1n ", parts[i - 1].surface), parts[i - 1].entity)
    return parts


# ---- the encyclopedia: wikitext

def encyclopedia_namer(rng: Dice, subject: Entity) -> Namer:
    """Full names first, later any; the subject also as "she" or "the novelist"."""
    met = set()

    def name(entity: Entity, slot: str) -> Part:
        chance = rng.random()
        if entity not in met and (entity is subject or chance < 0.7):
            surface = entity.names[0]
        elif entity is subject and slot == "" and chance < 0.6:
            return Part(entity.facts.get("it", "it") if chance < 0.4 else f"the {entity.noun}")
        else:
            surface = rng.pick(entity.names)
        met.add(entity)
        return Part(surface, entity)

    return name


def link(world: World, rng: Dice, surface: str, entity: Entity) -> str:
    """`[[surface]]` if that is the article or a redirect to it, otherwise `[[title|surface]]` as people write it."""
    title = entity.title
    if upper_first(surface) == title or world.redirects.get(surface) == title:
        return f"[[{surface}]]"
    chance = rng.random()
    if chance < 0.1 and world.redirects.get(entity.also) == title:
        title = entity.also
    elif chance < 0.15:
        title += "#History"
    elif chance < 0.2:
        title = title.replace(" ", "_")
    return f"[[{title}|{surface}]]"


def markup(world: World, rng: Dice, parts: list[Part], subject: Entity, linked: set[Entity]) -> str:
    """First mentions become links, later ones only sometimes; the subject is bold once and never a link."""
    out = ""
    for surface, entity in parts:
        if entity is None:
            out += surface.replace("–", "&ndash;").replace(" km", "&nbsp;km")
        elif entity is subject:
            out += surface if entity in linked else f"'''{surface}'''"
        else:
            out += surface if entity in linked and rng.random() < 0.6 else link(world, rng, surface, entity)
        linked.add(entity)
    chance = rng.random()
    if chance < 0.08:
        return (f"{out}<ref>{{{{cite book | title = Almanac of {rng.pick(['1921', '1955', '1980'])} | page = "
                f"{rng.number(1, 400)} }}}}</ref>")
    return out + ('<ref name="almanac" />' if chance < 0.12 else "<!-- source? -->" if chance < 0.14 else "")


def infobox(subject: Entity) -> str:
    rows = []
    for relation, value in subject.facts.items():
        if isinstance(value, (Entity, int)):
            shown = f"formatnum:{value}" if isinstance(value, int) else f"nowrap|[[{value.title}]]"
            rows.append(f"| {relation} = {{{{{shown}}}}}")
    return "\n".join([f"{{{{Infobox {subject.kind}", f"| name = {subject.names[0]}", *rows, "}}"])


def lists(world: World, rng: Dice, subject: Entity) -> Iterator[str]:
    """A bulleted list for each relation with several members, a table for towns and players."""
    for relation, members in subject.facts.items():
        if not isinstance(members, list) or len(members) < 2:
            continue
        yield f"== List of {relation} =="
        named = [(link(world, rng, member.names[0], member), member) for member in members[:8]]
        if relation in ("towns", "players"):
            rows = [f"|-\n| {name} || {member.noun}" for name, member in named]
            yield "\n".join(['{| class="wikitable"\n! Name !! Kind', *rows, "|}"])
            continue
        for name, member in named:
            places = [member.facts[fact] for fact in ("town", "born", "maker", "author") if fact in member.facts]
            yield f"* {name}, {member.noun}" + "".join(f" ([[{place.title}]])" for place in places)


def article(world: World, seed: int, subject: Entity) -> str:
    """The wikitext of a page; it depends on the world, the seed and this title, not on the pages before it."""
    rng = Dice(f"{seed} {subject.title}")
    name, linked, out = encyclopedia_namer(rng, subject), set(), [infobox(subject)]
    if len(world.senses[subject.names[-1]]) > 1:
        out.insert(0, f"{{{{about|the {subject.noun}|other uses|{subject.names[-1]} (disambiguation)}}}}")
    sections = re.split(r"\n(?===)", "\n".join(world.text[f"article {subject.kind}"]))
    for n, section in enumerate(sections):
        heading, *lines = section.split("\n") if n else ["", *section.split("\n")]
        definition, lines = ([], rng.shuffled(lines)) if n else (lines[:1], lines[1:])
        lines = [line.removeprefix(f"{subject.noun}: ") for line in lines if rng.random() < KEEP]
        lines = definition + [line for line in lines if not re.match("[a-z]+: ", line)]
        filled = (sentence(world, rng, line, subject, name) for line in lines)
        paragraph = " ".join(markup(world, rng, parts, subject, linked) for parts in filled if parts)
        out += [heading, paragraph] if paragraph else []
        if n == 1 and "town" in subject.facts:
            place = subject.facts["town"].title
            out.append(f"[[File:{subject.title} in {place}.jpg|thumb|{subject.names[0]} in [[{place}]]]]")
    out += [*lists(world, rng, subject), "== References ==", "<references />"]
    if rng.random() < 0.3:
        out.append(f"* [https://www.example.org/{len(subject.title)} Official site of {subject.names[0]}]")
    plural = re.sub("ys$", "ies", subject.noun.capitalize() + "s")
    region = subject.facts.get("region", subject)
    out += [f"[[Category:{plural} of {region.title}]]", f"[[fr:{subject.names[0]}]]"]
    return "\n".join(filter(None, out))


def wiki_pages(world: World, seed: int) -> list[tuple[int, str, str, str]]:
    """(namespace, title, title redirected to or "", wikitext), in an order that gives nothing away."""
    made = [(0, title, "", article(world, seed, entity)) for title, entity in world.entities.items()]
    made += [(0, title, target, f"#REDIRECT [[{target}]]") for title, target in world.redirects.items()]
    for title, owners in world.unclear.items():
        lines = [f"* [[{e.title}]], a {e.noun}" + (f" in [[{e.facts['region'].title}]]" if "region" in e.facts else "")
                 for e in owners]
        surface = title.removesuffix(" (disambiguation)")
        made.append((0, title, "", "\n".join([f"'''{surface}''' may refer to:", *lines, "{{disambiguation}}"])))
    for section in world.text:
        if section.startswith("article "):
            title = f"Template:Infobox {section.removeprefix('article ')}"
            made.append((10, title, "", "<includeonly>\n{|\n! {{{name}}}\n|}\n</includeonly>"))
    for region in world.groups["region", ""]:
        made.append((14, f"Category:Towns of {region.title}", "", f"Towns of [[{region.title}]].\n[[Category:Towns]]"))
        made.append((6, f"File:{region.title}.jpg", "", f"A map of [[{region.title}]]."))
    return Dice(f"order {seed}").shuffled(made)


# ---- the dump

def write_dump(path: str | Path, seed: int = 0, pages: int = PAGES) -> None:
    """The encyclopedia as a MediaWiki export, `.xml.bz2` in streams of 100 pages like Wikipedia's multistream dumps.

    `pages` is the number of articles, roughly. ValueError when it is below 50; OSError when the file cannot be written.
    """
    world = build_world(seed, pages)
    head, frame = ("\n".join([*world.text[section], ""]) for section in ("dump head", "dump page"))
    made = []
    for i, (namespace, title, target, wikitext) in enumerate(wiki_pages(world, seed)):
        redirect = f'    <redirect title="{escape(target)}" />\n' if target else ""
        made.append(frame.format(title=escape(title), namespace=namespace, id=i + 10, redirect=redirect,
                                 revision=i + 5000, date=f"2020-{i % 12 + 1:02}-{i % 28 + 1:02}",
                                 size=len(wikitext.encode()), wikitext=escape(wikitext)))
    with write_file(path, "wb") as file:
        for stream in [head, *("".join(made[i:i + 100]) for i in range(0, len(made), 100)), "</mediawiki>\n"]:
            file.write(bz2.compress(stream.encode()))


# ---- named entity recognition: CoNLL-2003

TOKEN = re.compile(r"F\.C\.|\d+(?:[-,.]\d+)*|\w+(?:-\w+)*|'s\b|[^\w\s]")
TAGS = {word: tag for tag, words in {
    "DT": "the a an no some this", "IN": "of in on at for by with from over after as about against through to near",
    "CC": "and or", "PRP": "it he she", "VBD": "was is were said told beat fell rose had left met sold led lost drew",
    "MD": "will could"}.items() for word in words.split()}


def reported_region(world: World, rng: Dice, split: str) -> Entity:
    """Where an example is about: for "train" in the first third of the regions, otherwise mostly in the rest."""
    regions = world.groups["region", ""]
    seen = split == "train" or rng.random() < 0.15
    return rng.pick(regions[:len(regions) // 3] if seen else regions[len(regions) // 3:])


def story(world: World, rng: Dice, region: Entity, full: float = 0.5) -> list[list[Part]]:
    """A document of up to 8 sentences about one entity of the region; half of the sentences could be about anything.

    In those a name has come up before, or has one type only, so that the document or the encyclopedia tells the type.
    `full`: how often a name is whole where it comes up first.
    """
    subject = near(world, rng, rng.pick(STORIES), region, 1)
    own, neutral = (rng.shuffled(world.text[section]) for section in (f"news {subject.kind}", "neutral story"))
    cast: list[Entity] = []  # who has come up so far
    out: list[list[Part]] = []

    def name(entity: Entity, slot: str) -> Part:  # news is brief: often bare from the start, nearly always later
        return Part(entity.names[0 if rng.random() < (0.1 if entity in cast else full) else -1], entity)

    length = rng.number(4, 8)
    while len(out) < length and neutral:
        if own and (not out or rng.random() < 0.5):
            parts = sentence(world, rng, own.pop(), subject, name)
        else:
            about_subject, line = rng.random() < 0.4, neutral.pop()
            parts = sentence(world, rng, line if about_subject else line.replace("{}", "{~any}"), subject, name)
            if any(entity and entity not in cast and len({KINDS[one.kind].ner for one in world.senses[surface]}) > 1
                   for surface, entity in parts):
                continue
        if parts:
            out.append(parts)
            cast += [part.entity for part in parts if part.entity]
    return out


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


def write_ner(folder: str | Path, seed: int = 0, pages: int = PAGES) -> None:
    """`train.conll`, `dev.conll`, `test.conll` in a folder (made if absent), from the world of `write_dump`.

    The training file reports from the first third of the regions, the other two mostly from the rest. ValueError when
    `pages` is below 50; OSError when a file cannot be written.
    """
    world = build_world(seed, pages)
    for split, wanted in SENTENCES.items():
        rng, lines, count = Dice(f"{seed} {split}"), [], 0
        while count < wanted:
            document = story(world, rng, reported_region(world, rng, split))
            if len(document) >= 4:
                lines += ["-DOCSTART- -X- O O", ""]
                for parts in document:
                    lines += [*conll(parts), ""]
                count += len(document)
        with write_file(Path(folder) / f"{split}.conll") as file:
            file.write("\n".join(lines) + "\n")
