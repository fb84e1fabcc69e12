"""The built-in encyclopedia: a fictional world, written as a real MediaWiki dump.

In: a seed. Out: `write_dump`, a pages-articles export (`.xml.bz2`), the same bytes for the same seed on every platform.
So the whole path runs without a download, and shows what pretraining is good for: what a model can know of the names in
`toyworld_tasks.py`, it knows from articles like this one:

    '''Hesknor''' is a port in [[Ralrok]].
    == Culture and sport ==
    The football club [[Hesknor_United|Hesknor]] plays at Station Lane. [[Hesknor College]] stands on the hill.

A sentence is a template of `toyworld.txt` filled with facts of `toyworld_facts.py`: plain text and mentions, which
become wikitext with links here, and words with labels in `toyworld_tasks.py`.
Left out on purpose: languages other than English, spelling mistakes, discussion and user pages.
"""

import bz2
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from luke_mini.files import write_file
from luke_mini.toyworld_facts import PAGES, Dice, Entity, World, build_world, near, upper_first

KEEP = 0.75  # share of the lines of a section that an article uses


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


TOKEN = re.compile(r"F\.C\.|\d+(?:[-,.]\d+)*|\w+(?:-\w+)*|'s\b|[^\w\s]")
Spans = list[tuple[Entity, int, int]]  # mentions and their half-open spans


def lay_out(parts: list[Part], cut: Callable = str) -> tuple[str | list[str], Spans]:
    """The text of a sentence, or the words that `TOKEN.findall` cuts, and its mentions in units of these."""
    out, mentions = cut(""), []
    for surface, entity in parts:
        start, out = len(out), out + cut(surface)
        if entity:
            mentions.append((entity, start, len(out)))
    return out, mentions


def first_span(mentions: Spans, entity: Entity) -> tuple[int, int]:
    return next((start, end) for mentioned, start, end in mentions if mentioned is entity)


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
    sections = re.split(r"\n(?===)", "\n".join(["", *world.text[f"article {subject.kind}"]]))
    for n, section in enumerate(sections):
        heading, *lines = section.split("\n")  # the first section has none
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


def other_articles(seed: int) -> Iterator[tuple[str, str]]:
    """(title, wikitext): every 20th entity told about anew, in sentences that the encyclopedia mostly lacks."""
    world = build_world(seed)
    return ((title, article(world, seed + 1, entity)) for title, entity in [*world.entities.items()][::20])


def wiki_pages(world: World, seed: int) -> list[tuple[int, str, str, str]]:
    """(namespace, title, title redirected to or "", wikitext), in an order that gives nothing away."""
    made = [(0, title, "", article(world, seed, entity)) for title, entity in world.entities.items()]
    made += [(0, title, target, f"#REDIRECT [[{target}]]") for title, target in world.redirects.items()]
    for title, owners in world.ambiguous.items():
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
