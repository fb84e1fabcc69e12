"""The entity vocabulary: title <-> id, with counts and the special entities (LUKE, section 3.4).

In: how often each title is linked. Out: an id for each title that is kept, and files.

    id        0      1      2       3       4       ...  n - 1
    entity    [PAD]  [UNK]  [MASK]  Norway  Oslo    ...  [MASK2]     titles by count, then by title

[MASK2] is the second entity of a pair in downstream tasks. Released files have other orders, so ids are always read
from the file. An entity may have several titles, one or more per language (mLUKE).

Three formats are detected by their content: ours, jsonl (one {"id": 3, "entities": [["Norway", "en"]], "count": 9} per
line; "wikidata": "Q20" too, if that is known), LUKE's tsv (title, tab, count; the id is the line number) and Hugging
Face's json ({"Norway": 3}, in multilingual vocabularies {"en:Norway": 3, "de:Norwegen": 3}), which transformers 5
keeps in tokenizer_config.json.

    python -m luke_mini.entity_vocab lookup|neighbours|add DIR ...      questions and new entities: `entity_tools.py`
"""

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from luke_mini import files

PAD, UNK, MASK, MASK2 = "[PAD]", "[UNK]", "[MASK]", "[MASK2]"
SPECIAL = (PAD, UNK, MASK, MASK2)
LITE_ENTITIES = [MASK, UNK, PAD, MASK2]  # of a released lite model, in its order
MAX_REDIRECTS = 10
# A key of a multilingual file. Titles of articles start with a capital, so "en:" is never part of one.
LANGUAGE_KEY = re.compile(r"([a-z][a-z-]+):(.+)", re.DOTALL)

Name = tuple[str, str | None]  # (title, language); special entities and plain files have the language None


class Entity(NamedTuple):
    """What a vocabulary knows of an entity."""

    names: list[Name]
    count: int = 0  # of links
    item: str | None = None  # of Wikidata, "Q20"


def resolve_redirect(title: str, redirects: Mapping[str, str]) -> str:
    """Follows at most 10 redirects; a title that leads into a cycle stands for itself."""
    target, seen = title, {title}
    for _ in range(MAX_REDIRECTS):
        if target not in redirects:
            break
        target = redirects[target]
        if target in seen:  # a cycle, not always through `title`
            return title
        seen.add(target)
    return target


def resolve_counts(counts: Mapping[str, int], redirects: Mapping[str, str]) -> Counter[str]:
    """Counts per linked title -> counts per title after redirects."""
    resolved: Counter[str] = Counter()
    for title, count in counts.items():
        resolved[resolve_redirect(title, redirects)] += count
    return resolved


class EntityVocab:
    """Titles and ids, both ways. `mask2_id` is None for files without [MASK2] (LUKE's own tsv)."""

    def __init__(
        self, entities: list[list[Name]], counts: list[int] | None = None, prefixed: bool = False,
        items: list[str | None] | None = None,
    ):  # fmt: skip
        """entities[id] holds the names of that entity. ValueError if a name occurs twice or [PAD], ... is missing.

        prefixed: `save` writes "ja:title" even for a single language. items: Wikidata's ids.
        """
        self._names = entities
        self._prefixed = prefixed
        self._counts = counts or [0] * len(entities)
        self._items = items or [None] * len(entities)
        self._ids: dict[str | None, dict[str, int]] = {None: {}}  # language -> title -> id
        for entity_id, names in enumerate(entities):
            for title, language in names:
                if self._ids.setdefault(language, {}).setdefault(title, entity_id) != entity_id:
                    first = self._ids[language][title]
                    raise ValueError(f"entity {entity_id}: the title {title!r} already has the id {first}")
        missing = [name for name in (PAD, UNK, MASK) if name not in self._ids[None]]
        if missing:
            raise ValueError(f"no special entity {' '.join(missing)} among the {len(entities)} entities")
        self.pad_id, self.unk_id, self.mask_id = (self._ids[None][name] for name in (PAD, UNK, MASK))
        self.mask2_id = self._ids[None].get(MASK2)
        self.languages = sorted(language for language in self._ids if language is not None)

    @classmethod
    def from_titles(cls, titles: Iterable[str]) -> "EntityVocab":
        """Entities without a language, in the order of their ids, special ones included."""
        return cls([[(title, None)] for title in titles])

    @classmethod
    def build(
        cls, counts: Mapping[str | None, Mapping[str, int]], size: int, items: Iterable = (), *,
        min_languages: int = 1, min_count: int = 1, allowlist: Set[Name] = frozenset(),
    ) -> "EntityVocab":  # fmt: skip
        """The most frequent entities, until the vocabulary has `size` entries including the four special ones.

        counts: language -> resolved title -> links. items: `wikidata.Item`s. An entity has the titles of an item that
        are linked, and the sum of their counts; a title without an item is an entity of its own (mLUKE, section 2). It
        is kept if it has that many languages and links. Those of the allowlist come first and need only one link.
        """
        left = {language: {title: n for title, n in titles.items() if not title.startswith("Category:")
                           or (title, language) in allowlist} for language, titles in counts.items()}  # fmt: skip

        def entities() -> Iterator[Entity]:
            for item in items:
                linked = {(title, lang): left[lang].pop(title, 0) for lang, title in item.titles.items()}
                yield Entity([name for name, count in linked.items() if count], sum(linked.values()), item.id)
            for language, titles in left.items():
                yield from (Entity([(title, language)], count) for title, count in titles.items())

        def order(entity: Entity) -> tuple:
            return -entity.count, entity.names[0]

        def is_listed(entity: Entity) -> bool:
            return not allowlist.isdisjoint(entity.names)

        def allowed(entity: Entity) -> bool:
            enough = len(entity.names) >= max(1, min_languages) and entity.count >= min_count
            return (enough or is_listed(entity)) and entity.names[0][0] not in SPECIAL

        kept = heapq.nsmallest(max(size, len(allowlist)), filter(allowed, entities()),
                               key=lambda entity: (not is_listed(entity), *order(entity)))  # fmt: skip
        least = len(SPECIAL) + sum(map(is_listed, kept))
        if size < least:
            raise ValueError(f"an entity vocabulary of {size}: special and listed entities need at least {least}")
        # differs from LUKE: [MASK2] is part of the vocabulary from the start, not appended after pretraining; and the
        # ids of the special entities are fixed, where its multilingual ones follow the order of a set
        pad, unk, mask, mask2 = (Entity([(name, None)]) for name in SPECIAL)
        return cls.of([pad, unk, mask, *sorted(kept[: size - len(SPECIAL)], key=order), mask2])

    @classmethod
    def of(cls, entities: Sequence[Entity], prefixed: bool = False) -> "EntityVocab":
        names, counts, items = map(list, zip(*entities))
        return cls(names, counts, prefixed, items)

    def __len__(self) -> int:
        return len(self._names)

    def get(self, title: str, language: str | None = None, default: int | None = None) -> int | None:
        """The id of a title, or `default`.

        language: None takes the vocabulary's only language, or the prefix of the title ("en:Norway").
        """
        if language is None:
            prefixed = LANGUAGE_KEY.fullmatch(title)
            if prefixed and prefixed[1] in self._ids:
                language, title = prefixed.groups()
            elif len(self.languages) == 1:
                language = self.languages[0]
        for table in (self._ids.get(language, {}), self._ids[None]):
            if title in table:
                return table[title]
        return default

    def id(self, title: str, language: str | None = None) -> int:
        """The id of a title, otherwise of [UNK]."""
        return self.get(title, language, self.unk_id)

    def title(self, entity_id: int, language: str | None = None) -> str:
        """The title in that language, otherwise the first one. IndexError if there is no such id."""
        if not 0 <= entity_id < len(self):
            raise IndexError(f"entity id {entity_id} is not one of the {len(self)}")
        names = self._names[entity_id]
        return next((title for title, other in names if other == language), names[0][0])

    def item(self, title: str, language: str | None = None) -> str | None:
        """Wikidata's id of a title, if it is known."""
        entity_id = self.get(title, language)
        return None if entity_id is None else self._items[entity_id]

    def link_table(self, redirects: Mapping[str, str], language: str | None = None) -> dict[str, int]:
        """Titles of known entities, and redirects to them -> ids."""
        titles = self._ids[None] | self._ids.get(language or next(iter(self.languages), None), {})
        titles = {title: entity_id for title, entity_id in titles.items() if title not in SPECIAL}
        targets = ((source, resolve_redirect(source, redirects)) for source in redirects)
        return titles | {source: titles[target] for source, target in targets if target in titles}

    def entity(self, entity_id: int) -> Entity:
        return Entity(self._names[entity_id], self._counts[entity_id], self._items[entity_id])

    def extended_by(self, *more: Entity, prefixed: bool = False) -> "EntityVocab":
        """The same with more at the end."""
        return EntityVocab.of([*map(self.entity, range(len(self))), *more], prefixed or self._prefixed)

    def for_release(self) -> "EntityVocab":
        """The same with [MASK2] added at the end, if missing, and language prefixes in files."""
        more = [] if self.mask2_id is not None else [Entity([(MASK2, None)])]
        return self.extended_by(*more, prefixed=True)

    def save(self, path: str | Path) -> None:
        """Writes Hugging Face's format if the name ends in .json, otherwise ours (jsonl), which keeps the counts."""
        with files.write_file(path) as file:
            if Path(path).suffix == ".json":
                json.dump(self._keys(), file, ensure_ascii=False)
                return
            for entity_id, (names, count, item) in enumerate(zip(self._names, self._counts, self._items)):
                line = {"id": entity_id, "entities": names, "count": count} | ({"wikidata": item} if item else {})
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _keys(self) -> dict[str, int]:
        # Titles that look like "en:Oslo", such as "umls:C1", get a prefix, too, or reading would take theirs for one.
        ambiguous = all(LANGUAGE_KEY.fullmatch(title) for names in self._names for title, of in names if of)
        prefixed = self._prefixed or len(self.languages) > 1 or ambiguous
        names = [(*name, entity_id) for entity_id, names in enumerate(self._names) for name in names]
        return {f"{language}:{title}" if prefixed and language else title: k for title, language, k in names}

    @classmethod
    def load(cls, path: str | Path) -> "EntityVocab":
        """Reads any of the three formats."""
        try:
            with open(path, encoding="utf-8-sig") as file:
                first = file.readline()
                file.seek(0)
                if not first.startswith("{"):
                    return cls(*_read_tsv(file))
                if '"entities": [' in first or '"entities":[' in first:
                    return cls(*_read_jsonl(file))
                return cls(*_read_json(json.load(file)))
        except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors too
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def of_folder(cls, folder: Path) -> "EntityVocab | None":
        """The vocabulary of a model folder: entity_vocab.json, otherwise tokenizer_config.json's, if any."""
        if (folder / "entity_vocab.json").is_file():
            return cls.load(folder / "entity_vocab.json")
        path = folder / "tokenizer_config.json"
        try:
            held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            keys = held.get("entity_vocab") if isinstance(held, dict) else None
            return None if keys is None else cls(*_read_json(keys))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: {error}") from None


def _read_tsv(file: Iterable[str]) -> tuple[list[list[Name]], list[int]]:
    entities, counts = [], []
    for number, line in enumerate(file, 1):
        title, tab, count = line.rstrip("\n").rpartition("\t")
        if not tab or not count.isdecimal():
            raise ValueError(f"line {number}: expected a title, a tab and a count, found {line[:60]!r}")
        entities.append([(title, None)])
        counts.append(int(count))
    return entities, counts


def _read_jsonl(file: Iterable[str]) -> tuple[list[list[Name]], list[int], bool, list[str | None]]:
    entities, counts, items = [], [], []
    for entity_id, line in enumerate(file):
        try:
            entry = json.loads(line)
            names = [(title, None if title in SPECIAL else language) for title, language in entry["entities"]]
            count = entry.get("count", 0)
            texts = all(isinstance(title, str) and isinstance(language, (str, type(None))) for title, language in names)
            if entry["id"] != entity_id or not names or not texts or not isinstance(count, int):
                raise ValueError
            entities.append(names)
            counts.append(count)
            items.append(entry.get("wikidata"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            shape = f'{{"id": {entity_id}, "entities": [["Norway", "en"]], "count": 9}}'
            raise ValueError(f"line {entity_id + 1}: expected {shape}, found {line[:60]!r}") from None
    return entities, counts, False, items


def _read_json(keys) -> tuple[list[list[Name]], None, bool]:
    if not isinstance(keys, dict) or not all(isinstance(entity_id, int) for entity_id in keys.values()):
        raise ValueError('expected one JSON object {"title": id, ...}')
    ids = set(keys.values())
    if ids != set(range(len(ids))):
        raise ValueError(f"{len(keys)} titles, expected the ids 0, 1, 2, ... without a gap")
    entities: list[list[Name]] = [[] for _ in ids]
    multilingual = all(LANGUAGE_KEY.fullmatch(key) for key in keys if key not in SPECIAL)
    for key, entity_id in keys.items():
        language, title = LANGUAGE_KEY.fullmatch(key).groups() if multilingual and key not in SPECIAL else (None, key)
        entities[entity_id].append((title, language))
    return entities, None, multilingual


if __name__ == "__main__":  # the tool needs the files above this one in the layers
    files.run(import_module("luke_mini.entity_tools").main, "luke_mini.entity_vocab")
