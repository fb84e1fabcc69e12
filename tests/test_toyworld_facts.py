"""The text file of the built-in encyclopedia: malformed lines are named, and every slot is a fact of the world.

Run: python -m pytest -q tests/test_toyworld_facts.py
"""

import re

import pytest

from luke_mini.toyworld_facts import Entity, build_world, parse_fact, read_sections

UNKNOWN = "expected a section of a known name, and only once"


@pytest.mark.parametrize(
    ("section", "line", "expected"),
    [
        ("", "{} won.", UNKNOWN), ("", "[news clob]", UNKNOWN), ("", "[article poet]", UNKNOWN),
        ("news club", "[news club]", UNKNOWN),
        ("news club", "{} won", "expected a sentence"), ("news club", "won by {}.", "expected a sentence"),
        ("news club", "Who won?", "expected a sentence"), ("news club", "{} <won|lost.", "brackets in pairs"),
        ("news club", "{} won [at home.", "brackets in pairs"), ("news club", "{} won|lost.", "brackets in pairs"),
        ("news club", "{} won [at home|away].", "brackets in pairs"), ("news club", "{} won} it.", "brackets in pairs"),
        ("news club", "{} won {10-}.", "brackets in pairs"), ("news club", "{} beat {~clob}.", "brackets in pairs"),
        ("words", "Al, Bel", "`name: one, two`"), ("concepts", "Piano: it has strings", "`noun: meaning`"),
        ("article person", "poet: {} wrote.", "`job: sentence`"), ("article person", "== Work", "`== Heading ==`"),
        ("fact person born", "Label: born_in", "`label: name`"), ("letter", "which {kind}?", "a question"),
        ("fact person born", "clause: Born.", "`clause: words`"), ("dump page", "title", "XML"),
    ],
)  # fmt: skip
def test_a_malformed_line_is_named(tmp_path, section, line, expected):
    path = tmp_path / "toyworld.txt"
    path.write_text(f"# Head.\n\n{section and f'[{section}]'}\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 4: {line!r}, expected ") + ".*") as error:
        read_sections(path)
    assert expected in str(error.value)


def test_sections_are_read_as_written(tmp_path):
    path = tmp_path / "toyworld.txt"
    text = "# Head.\n[letter]\n{a} and {b}.\n# A remark.\n\nWho?\n[news club]\n{} <won[ at home]|lost>.\n[choice]\n"
    path.write_text(text, encoding="utf-8")
    wanted = {"letter": ["{a} and {b}.", "Who?"], "news club": ["{} <won[ at home]|lost>."], "choice": []}
    assert read_sections(path) == wanted


def test_a_fact_needs_its_parts():
    lines = ["label: born_in", "clause: born in {born}", "P19: {} is from {born}.", "In {born} {} was born.", "Where?"]
    probe = "{} is from {born}."
    wanted = ("born_in", "born in {born}", "P19", probe, [probe, lines[3]], ["Where?"])
    assert parse_fact("fact person born", lines) == wanted
    for missing in (1, 2, 3, 4):
        with pytest.raises(ValueError, match=r"\[fact person born\] needs a clause, two sentences and a question"):
            parse_fact("fact person born", lines[:missing] + lines[missing + 1:])
    assert parse_fact("fact person born", [*lines[1:2], *lines[3:], lines[3]])[:4:2] == ("", "")


@pytest.fixture(scope="module")
def world():
    return build_world()


def reachable(entities, path):
    """Every value that a path of relations leads to."""
    values = [fact for entity in entities if isinstance(entity, Entity) for fact in [entity.facts.get(path[0])]]
    values = [one for value in values for one in (value if isinstance(value, list) else [value]) if one is not None]
    return reachable(values, path[1:]) if path[1:] else values


# Sentences that no entity can use. To drop them changes every byte: for whoever changes the sentences anyway.
NEVER_USED = {("article language", "form"), ("article town", "form"), ("article school", "head"),
              ("article product", "job"), ("news town", "month")}  # fmt: skip


def test_every_slot_is_a_fact(world):
    """A sentence with a misspelled slot would silently never be used."""
    unknown = set()
    for section, lines in world.text.items():
        sort, kind, *_ = [*section.split(), ""]
        if sort in ("article", "news", "fact"):
            slots = set(re.findall(r"\{([a-z.]+)\}", "\n".join(lines))) - {"me", "it", "its"}
            unknown |= {(section, slot) for slot in slots if not reachable(world.groups[kind, ""], slot.split("."))}
    assert unknown == NEVER_USED


def test_what_the_tasks_tell_and_ask_is_another_entity(world):
    for kind, relation in world.wordings:
        values = [entity.facts[relation] for entity in world.groups[kind, ""] if relation in entity.facts]
        assert values and all(isinstance(value, Entity) for value in values), (kind, relation)
