"""The facts of the built-in encyclopedia: who was born where, plays for which club, founded which firm.

In: a seed. Out: `build_world`, a few thousand entities whose relations agree wherever they are mentioned, so that a
model can learn them. Names are made of shared syllables, and lent on purpose: a club, a firm and a family may all be
called after the town Elwen, as on Wikipedia. A title that is taken gets brackets, `Elwen (company)`; a surface with
several owners gets a disambiguation page. `toyworld.py` makes articles of it, `toyworld_tasks.py` labeled data.

To add a sentence, write it into `toyworld.txt`, whose head says how. To add a relation:
1. Here, note it where its subject is made, for example `relate(person, "idol", near(world, rng, "person", None))` in
   `add_people`; with "idol": "admirers" in REVERSED the other side knows it too. What it leads to must exist by then.
2. In `toyworld.txt`, use it: `{} admired {idol}.` below [article person]. A section [fact person idol] lets the tasks
   tell it and ask for it.
Left out on purpose: dates that agree (someone may play for a club that is not yet founded), events, geography.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NamedTuple

from luke_mini.files import read_text

PAGES = 3000  # articles, roughly; redirects, disambiguation and other pages come on top
TEXT = Path(__file__).with_name("toyworld.txt")


class Kind(NamedTuple):
    share: int  # per thousand articles
    ner: str | None  # type in named entity recognition
    called: str = ""  # in questions; "": not asked for
    types: tuple[str, ...] = ()  # in entity typing, the coarse one first; the noun of an entity comes on top
    size: float = 0.0  # in regression


KINDS = {
    "region": Kind(8, "LOC", "region", ("location",), 2.5),
    "river": Kind(20, "LOC", "river", ("location",), 2.5),
    "town": Kind(140, "LOC", "town", ("location",), 2.0),
    "person": Kind(390, "PER", "person", ("person",), 0.5),
    "firm": Kind(100, "ORG", "company", ("organization",), 1.5),
    "club": Kind(85, "ORG", "club", ("organization",), 1.0),
    "school": Kind(45, "ORG", "school", ("organization",), 1.0),
    "product": Kind(85, "MISC", "product", ("object", "product")),
    "work": Kind(85, "MISC", "work", ("object", "work")),
    "festival": Kind(20, "MISC", "festival", ("event",), 1.0),
    "award": Kind(14, "MISC", "prize"),
    "language": Kind(0, "MISC"),
    "concept": Kind(0, None),
}
JOBS = ["footballer"] * 4 + ["novelist", "politician", "composer", "painter", "physicist", "engineer", "actor"]
THINGS = ["piano", "violin", "bicycle", "camera", "tractor", "clock"]
FORMS = {"novelist": ["novel"], "composer": ["opera", "symphony", "album"], "actor": ["film"], "painter": ["film"]}
# A relation and what it is called from the other side; `town` and `region` give `clubs`, `firms`, `persons`, ...
REVERSED = {"born": "natives", "club": "players", "school": "alumni", "award": "winners", "founder": "firms",
            "maker": "products", "inventor": "products", "author": "works", "setting": "works", "river": "towns",
            "namesake": "namesakes", "office": "mayor", "managed": "coach"}


# ---- toyworld.txt

KIND = f"({'|'.join(KINDS)})"
SENTENCE = r"[^a-z].*\."
SYNTAX = [  # names of sections, their lines, and these in words
    ("words", r"[a-z ]+: .+", "`name: one, two`"),
    ("concepts", r"[a-z]+: .+", "`noun: meaning`"),
    (f"article {KIND}", rf"(({'|'.join(JOBS)}): )?{SENTENCE}|== .+ ==",
     "a sentence, `job: sentence` or `== Heading ==`"),
    (f"news {KIND}|neutral (story|one|two|aside)|pair river", SENTENCE, "a sentence"),
    ("letter|choice", rf"{SENTENCE}|[A-Z].*\?", "a sentence or a question"),
    (f"fact {KIND} [a-z]+", rf"label: \w+|clause: .+[^.?]|(P\d+: )?{SENTENCE}|[A-Z].*\?",
     "`label: name`, `clause: words`, a sentence, `P19: sentence` or a question"),
    ("dump (head|page)|wned annotation", ".*<.+>", "XML"),
]


def well_formed(line: str) -> bool:
    """Whether brackets come in pairs, `|` stands in `<a|b>` only, and braces hold slots."""
    line = re.sub(rf"\{{(\d+-\d+|~(any|{KIND})|[a-z]*(\.[a-z]+)*)\}}", "", line)
    while (shorter := re.sub(r"<[^<>\[\]]*>|\[[^<>\[\]|]*\]", "", line)) != line:
        line = shorter
    return not re.search(r"[<>\[\]{}|]", line)


def read_sections(path: str | Path = TEXT) -> dict[str, list[str]]:
    """Section -> lines, in the order of the file. ValueError names the line that is not as the file's head says."""
    sections, name = {}, ""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        heading = re.fullmatch(r"\[([a-z ]+)\]", line)
        name = heading[1] if heading else name
        pattern, expected = next((rest for names, *rest in SYNTAX if re.fullmatch(names, name)), (None, None))
        if pattern is None or (heading and name in sections):
            raise ValueError(f"{path}, line {number}: {line!r}, expected a section of a known name, and only once")
        if not heading and not (re.fullmatch(pattern, line) and well_formed(line)):
            raise ValueError(f"{path}, line {number}: {line!r}, expected {expected}, with brackets in pairs")
        sections.setdefault(name, []).extend([] if heading else [line])
    return sections


class Wording(NamedTuple):
    """How the tasks tell a fact and ask for it."""

    label: str  # class in relation classification; "": none
    clause: str  # the fact between commas behind the subject
    property: str  # in cloze probing, as on Wikidata; "": none
    probe: str  # the one of `says` that probes it
    says: list[str]
    asks: list[str]  # their answer is the value


def parse_fact(section: str, lines: list[str]) -> Wording:
    keyed = dict(line.split(": ", 1) for line in lines if re.match(r"\w+: ", line))
    known = next((key for key in keyed if key[0] == "P"), "")
    says = [line.removeprefix(f"{known}: ") for line in lines if line.endswith(".")]
    asks = [line for line in lines if line.endswith("?")]
    if "clause" not in keyed or len(says) < 2 or not asks:
        raise ValueError(f"{TEXT}: [{section}] needs a clause, two sentences and a question")
    return Wording(keyed.get("label", ""), keyed["clause"], known, keyed.get(known, ""), says, asks)


# ---- entities

class Dice(Random):
    """Nothing but `random()` is used of `Random`: only that is promised to be the same in every version of Python."""

    def pick(self, items):
        return items[int(self.random() * len(items))]

    def number(self, low: int, high: int) -> int:
        return low + int(self.random() * (high - low + 1))

    def shuffled(self, items) -> list:
        return sorted(items, key=lambda _: self.random())


@dataclass(slots=True, eq=False)
class Entity:
    kind: str  # a key of KINDS
    noun: str  # what it is in one common word: town, physicist, piano
    title: str  # of its article
    also: str  # another title, a redirect; may be ""
    names: list[str]  # surfaces, the fullest first, the shortest last; others may share them
    facts: dict = field(default_factory=dict)  # relation -> Entity, list of them, word or number
    own_name: str = ""  # the shortest name that is nobody else's; "" if it has none


@dataclass(slots=True)
class World:
    text: dict[str, list[str]] = field(default_factory=read_sections)  # toyworld.txt: section -> lines
    words: dict[str, list[str]] = field(default_factory=dict)  # its section [words]
    wordings: dict[tuple[str, str], Wording] = field(default_factory=dict)  # its facts, by kind and relation
    entities: dict[str, Entity] = field(default_factory=dict)  # by title
    redirects: dict[str, str] = field(default_factory=dict)  # another title -> title
    senses: dict[str, list[Entity]] = field(default_factory=dict)  # surface -> every entity called so
    ambiguous: dict[str, list[Entity]] = field(default_factory=dict)  # title of a disambiguation page -> its entities
    groups: dict[tuple[str, str], list[Entity]] = field(default_factory=dict)  # kind or noun, region ("": all)

    def __post_init__(self) -> None:
        for line in self.text["words"]:
            name, words = line.split(": ")
            self.words.setdefault(name, []).extend(words.split(", "))
        for section in (name for name in self.text if name.startswith("fact ")):
            self.wordings[tuple(section.split()[1:])] = parse_fact(section, self.text[section])


def upper_first(words: str) -> str:
    return words[:1].upper() + words[1:]


def near(world: World, rng: Dice, group: str, where: Entity | None, stay: float = 0.8) -> Entity:
    """Some entity of a kind (or noun, or "any"), with probability `stay` from the region of `where`, if any.

    The first ones are the famous ones: a few are mentioned often, most of them rarely.
    """
    group = group if group != "any" else rng.pick([name for name, kind in KINDS.items() if kind.ner])
    region = where.facts.get("region", where) if where else None
    here = world.groups.get((group, region.title), []) if region else []
    candidates = here if here and rng.random() < stay else world.groups[group, ""]
    return candidates[int(rng.random() ** 2 * len(candidates))]


def relate(entity: Entity, relation: str, other) -> None:
    """Notes a fact on both sides, unless the other is the entity itself."""
    if other is entity:
        return
    entity.facts[relation] = other
    reverse = f"{entity.kind}s" if relation in ("town", "region") else REVERSED.get(relation)
    if reverse:
        other.facts.setdefault(reverse, []).append(entity)


def add(world: World, kind: str, names: list[str], title: str = "", noun: str = "", also: str = "", **facts) -> Entity:
    """A new entity. Its noun stands in brackets behind a title that is taken."""
    base, noun = title or upper_first(names[0]), noun or kind
    titles = (base, f"{base} ({noun})", f"{base} ({noun}, no. {len(world.entities)})")
    title = next(name for name in titles if name not in world.entities)
    entity = world.entities[title] = Entity(kind, noun, title, also, names)
    for relation, value in facts.items():
        if value is not None:
            relate(entity, relation, value)
    for name in names:
        world.senses.setdefault(name, []).append(entity)
    for group in dict.fromkeys((kind, noun)):
        for place in (facts["region"].title, "") if "region" in facts else ("",):
            world.groups.setdefault((group, place), []).append(entity)
    return entity


def invent(world: World, rng: Dice, kind: str) -> str:
    """A name no one has yet. Most endings are shared by all kinds: spelling alone must not give the type away."""
    words, telling = world.words, world.words.get(f"ends {kind}")
    while True:
        end = rng.pick(telling if telling and rng.random() < 0.15 else words["ends"])
        name = rng.pick(words["starts"]) + (rng.pick(words["middles"]) if rng.random() < 0.3 else "") + end
        if name not in world.senses:
            return name


# ---- the steps of build_world

def add_places(world: World, rng: Dice, counts: dict[str, int]) -> None:
    for _ in range(counts["region"]):
        name = invent(world, rng, "region")
        region = add(world, "region", [name], area=rng.number(900, 9000), people=rng.number(90_000, 3_000_000))
        people = re.sub("(ia|mark|land|us|en)$", "", name) + rng.pick(world.words["ends people"])
        region.facts["tongue"] = add(world, "language", [people], title=f"{people} language", also=f"{people} people",
                                     region=region)
    regions = world.groups["region", ""]
    for i, region in enumerate(regions):
        region.facts["neighbour"] = regions[i - 1]
    for i in range(counts["river"]):
        name, region = invent(world, rng, "river"), regions[i % len(regions)]
        rivers = world.groups.get(("river", region.title))
        add(world, "river", [f"River {name}", name], also=f"{name} River", region=region, length=rng.number(20, 400),
            mouth=rng.pick(rivers) if rivers else "sea")
    for i in range(counts["town"]):
        name, region = invent(world, rng, "town"), regions[i % len(regions)]
        towns = world.groups.get(("town", region.title))
        town = add(world, "town", [name], also=f"{name}, {region.title}", region=region,
                   river=near(world, rng, "river", region, 1) if rng.random() < 0.6 else None,
                   people=rng.number(900, 90_000), founded=rng.number(1100, 1800), tongue=region.facts["tongue"],
                   trade=rng.pick(world.words["trades"]), neighbour=rng.pick(towns) if towns else None)
        region.facts.setdefault("capital", town)


def located(town: Entity) -> dict:
    """The facts that whatever stands in a town has from it."""
    return {"town": town, "region": town.facts["region"], "tongue": town.facts["tongue"]}


def add_clubs_and_schools(world: World, rng: Dice, counts: dict[str, int]) -> None:
    words, towns = world.words, rng.shuffled(world.groups["town", ""])
    for i in range(counts["club"]):
        town = towns[i % len(towns)]
        name, end = town.title if rng.random() < 0.65 else invent(world, rng, "club"), rng.pick(words["club"])
        add(world, "club", [f"{name} {end}", name], also=f"{name} {end.replace('F.C.', 'Football Club')}",
            **located(town), founded=rng.number(1880, 1935),
            ground=f"{rng.pick(words['grounds'])} {rng.pick(['Lane', 'Park', 'Road', 'Field'])}",
            colours=f"{rng.pick(words['colors'])} and {rng.pick(['white', 'black', 'gold'])}")
    for _ in range(counts["school"]):
        town = rng.pick(towns)
        name = town.title if rng.random() < 0.4 else invent(world, rng, "school")
        add(world, "school", [f"{name} {rng.pick(words['school'])}", name], **located(town),
            founded=rng.number(1500, 1930), staff=rng.number(300, 12_000))


def add_people(world: World, rng: Dice, counts: dict[str, int]) -> None:
    words = world.words
    firsts = {it: sorted({rng.pick(words["starts"]) + rng.pick(words[f"ends {it}"]) for _ in range(90)})
              for it in ("she", "he")}
    families = [invent(world, rng, "person") if rng.random() < 0.65 else near(world, rng, "town", None).title
                for _ in range(3 + counts["person"] // 3)]
    for i in range(counts["person"]):
        it, family, job = rng.pick(["she", "he"]), rng.pick(families), JOBS[i % len(JOBS)]
        first, born, year = rng.pick(firsts[it]), near(world, rng, "town", None), rng.number(1850, 1955)
        region, died, season = born.facts["region"], year + rng.number(40, 90), year + rng.number(18, 35)
        home, was, years = near(world, rng, "town", region, 0.5), "was", f"{year}–{died}"
        if died >= 2000:
            died, was, years = None, "is", f"born {rng.number(1, 28)} {rng.pick(words['months'])} {year}"
        person = add(world, "person", [f"{first} {family}", family], noun=job, also=f"{family}, {first}", region=region,
                     born=born, tongue=region.facts["tongue"], job=world.entities[job.capitalize()], year=year,
                     died=died, season=season, home=home, it=it, its={"she": "her", "he": "his"}[it], years=years,
                     was=was)
        if i:
            person.facts["friend"] = near(world, rng, "person", region)
        if job == "footballer":
            relate(person, "club", near(world, rng, "club", region))
            person.facts["past"] = near(world, rng, "club", region, 0.4)
            if rng.random() < 0.2:
                relate(person, "managed", near(world, rng, "club", region))
        elif job == "politician":
            relate(person, "office", near(world, rng, "town", region))
        else:
            school = near(world, rng, "school", region)
            person.facts["mentor"] = rng.pick(school.facts.get("alumni", [None]))
            relate(person, "school", school)


def add_firms_and_awards(world: World, rng: Dice, counts: dict[str, int]) -> None:
    for i in range(counts["firm"]):
        founder, thing = near(world, rng, "engineer", None), THINGS[i % len(THINGS)]
        town, chance = founder.facts["home"], rng.random()
        name = founder.names[-1] if chance < 0.4 else town.title if chance < 0.5 else invent(world, rng, "firm")
        long = f"{name} {rng.pick(world.words['firm'])}"
        add(world, "firm", [long, name] if rng.random() < 0.5 else [name], noun="company", also=f"{name} Ltd",
            town=town, region=town.facts["region"], founder=founder, staff=rng.number(20, 9000),
            founded=founder.facts["season"], thing=world.entities[thing.capitalize()])
    for _ in range(counts["award"]):
        namesake = near(world, rng, "person", None)
        add(world, "award", [f"{namesake.names[-1]} {rng.pick(world.words['award'])}"], namesake=namesake,
            region=namesake.facts["region"], town=namesake.facts["home"], job=namesake.facts["job"],
            founded=rng.number(1900, 1960), month=rng.pick(world.words["months"]))
    for person in world.groups["person", ""]:
        prizes = [prize for prize in world.groups["award", ""] if prize.facts["job"] is person.facts["job"]]
        if prizes and rng.random() < 0.2:
            relate(person, "award", rng.pick(prizes))


def add_creations(world: World, rng: Dice, counts: dict[str, int]) -> None:
    words = world.words
    for _ in range(counts["product"]):
        maker, chance = near(world, rng, "firm", None), rng.random()
        inventor = maker.facts["founder"] if rng.random() < 0.5 else near(world, rng, "engineer", maker.facts["region"])
        name = (inventor.names[-1] if chance < 0.25 else f"{maker.names[-1]} {rng.number(2, 90)}0" if chance < 0.4
                else invent(world, rng, "product"))
        add(world, "product", [name], noun=maker.facts["thing"].names[0], maker=maker, inventor=inventor,
            region=maker.facts["region"], thing=maker.facts["thing"], year=rng.number(1880, 1990))
    authors = [person for job in FORMS for person in world.groups[job, ""]]
    for _ in range(counts["work"]):
        author, chance = rng.pick(authors), rng.random()
        setting = near(world, rng, "town", author.facts["region"])
        form, noun = rng.pick(FORMS[author.noun]), rng.pick(words["nouns"])
        name = (f"The {rng.pick(words['adjectives'])} {noun}" if chance < 0.35 else f"The {noun} of {setting.title}"
                if chance < 0.5 else setting.title if chance < 0.55 else invent(world, rng, "work"))
        add(world, "work", [name], noun=form, author=author, form=world.entities[form.capitalize()], setting=setting,
            region=author.facts["region"], tongue=author.facts["tongue"], year=author.facts["season"] + 10)
    for _ in range(counts["festival"]):
        town = near(world, rng, "town", None)
        namesake = town.facts.get("river", town) if rng.random() < 0.6 else near(world, rng, "person", town)
        add(world, "festival", [f"{namesake.names[-1]} {rng.pick(words['festival'])}"], namesake=namesake,
            **located(town), founded=rng.number(1850, 1980), month=rng.pick(words["months"]))


def add_rivals(world: World, rng: Dice, counts: dict[str, int]) -> None:
    for entity in [entity for kind in ("club", "firm", "product") for entity in world.groups[kind, ""]]:
        relate(entity, "rival", near(world, rng, entity.kind, entity))


def add_other_titles(world: World) -> None:
    """Redirects and disambiguation pages. A title is one page, so entities win over redirects, these over the rest."""
    for entity in world.entities.values():
        if entity.also and entity.also not in world.entities:
            world.redirects[entity.also] = entity.title
            if "Football Club" in entity.also:  # a redirect to a redirect
                world.redirects[entity.also.replace("Football Club", "FC")] = entity.also
    for surface, owners in world.senses.items():
        if len(owners) > 1:
            taken = surface in world.entities or surface in world.redirects
            world.ambiguous[f"{surface} (disambiguation)" if taken else surface] = owners
        else:
            owners[0].own_name = surface  # the shortest one comes last
            if upper_first(surface) not in world.entities:
                world.redirects.setdefault(surface, owners[0].title)


def build_world(seed: int = 0, pages: int = PAGES) -> World:
    """Every entity and fact of the encyclopedia: about `pages` entities. ValueError below 50, too few to relate."""
    if pages < 50:
        raise ValueError(f"pages = {pages}: a world needs at least 50")
    world = World()
    rng = Dice(f"world {seed}")  # a string seed goes through SHA-512, not through Python's salted hash
    counts = {name: max(3, round(kind.share * pages / 1000)) for name, kind in KINDS.items()}
    for line in world.text["concepts"]:
        word, meaning = line.split(": ")
        add(world, "concept", [word], meaning=meaning)
    for step in (add_places, add_clubs_and_schools, add_people, add_firms_and_awards, add_creations, add_rivals):
        step(world, rng, counts)
    add_other_titles(world)
    return world
