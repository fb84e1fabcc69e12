"""The text file of the built-in encyclopedia: malformed lines are named, and every slot is a fact of the world.

Run: python -m pytest -q tests/test_toyworld_facts.py
"""

import re

import pytest

from luke_mini.toyworld_facts import Entity, build_world, parse_fact, read_sections


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[news clob]", "expected a section of a known name"),
        ("[article poet]", "expected a section of a known name"),
        ("[news club]", "expected a section of a known name, and only once"),
        ("{} won", "expected a sentence"),
        ("won by {}.", "expected a sentence"),
        ("Who won?", "expected a sentence"),
        ("{} <won|lost.", "brackets in pairs"),
        ("{} won [at home.", "brackets in pairs"),
        ("{} won [at home|away].", "brackets in pairs"),
        ("{} won|lost.", "brackets in pairs"),
        ("{} won} a game.", "brackets in pairs"),
        ("{} won {10-}.", "brackets in pairs"),
        ("{} won against {~clob}.", "brackets in pairs"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, line, expected):
    path = tmp_path / "toyworld.txt"
    path.write_text(f"# Head.\n\n[news club]\n{{}} <won[ at home]|lost>.\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 5: {line!r}") + ".*" + re.escape(expected)):
        read_sections(path)


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("words", "Al, Bel"), ("concepts", "Piano: it has strings"), ("article person", "poet: {} wrote."),
        ("article person", "== Work"), ("fact person born", "Label: born_in"), ("fact person born", "clause: Born."),
        ("letter", "which {kind}?"), ("dump page", "title"),
    ],
)  # fmt: skip
def test_each_section_has_its_lines(tmp_path, section, line):
    path = tmp_path / "toyworld.txt"
    path.write_text(f"[{section}]\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(f"line 2: {line!r}, expected ")):
        read_sections(path)


def test_a_line_before_the_first_section_is_named(tmp_path):
    path = tmp_path / "toyworld.txt"
    path.write_text("{} won.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 1: '{} won.', expected a section"):
        read_sections(path)


def test_sections_are_read_as_written(tmp_path):
    path = tmp_path / "toyworld.txt"
    path.write_text("# Head.\n[letter]\n{a} and {b}.\n# A remark.\n\nWho?\n[news club]\n", encoding="utf-8")
    assert read_sections(path) == {"letter": ["{a} and {b}.", "Who?"], "news club": []}


def test_a_fact_needs_its_parts():
    lines = ["label: born_in", "clause: born in {born}", "P19: {} is from {born}.", "In {born} {} was born.", "Where?"]
    fact = parse_fact("fact person born", lines)
    assert fact.label == "born_in" and fact.clause == "born in {born}" and fact.asks == ["Where?"]
    assert fact.property == "P19" and fact.probe == "{} is from {born}." and fact.says == [fact.probe, lines[3]]
    for missing in (1, 2, 3, 4):
        with pytest.raises(ValueError, match=r"\[fact person born\] needs a clause, two sentences and a question"):
            parse_fact("fact person born", lines[:missing] + lines[missing + 1:])
    assert parse_fact("fact person born", [*lines[1:2], *lines[3:], lines[3]])[:4:2] == ("", "")


def reachable(entities, path):
    """Every value that a path of relations leads to."""
    values = [fact for entity in entities if isinstance(entity, Entity) for fact in [entity.facts.get(path[0])]]
    values = [one for value in values for one in (value if isinstance(value, list) else [value]) if one is not None]
    return reachable(values, path[1:]) if path[1:] else values


# Sentences that no entity can use. To drop them changes every byte: for whoever changes the sentences anyway.
NEVER_USED = {("article language", "form"), ("article town", "form"), ("article school", "head"),
              ("article product", "job"), ("news town", "month")}  # fmt: skip


def test_every_slot_is_a_fact():
    """A sentence with a misspelled slot would silently never be used."""
    world, unknown = build_world(), set()
    for section, lines in world.text.items():
        sort, kind, *_ = [*section.split(), ""]
        if sort in ("article", "news", "fact"):
            slots = set(re.findall(r"\{([a-z.]+)\}", "\n".join(lines))) - {"me", "it", "its"}
            unknown |= {(section, slot) for slot in slots if not reachable(world.groups[kind, ""], slot.split("."))}
    assert unknown == NEVER_USED


def test_what_the_tasks_tell_and_ask_is_another_entity():
    world = build_world()
    for kind, relation in world.wordings:
        values = [entity.facts[relation] for entity in world.groups[kind, ""] if relation in entity.facts]
        assert values and all(isinstance(value, Entity) for value in values), (kind, relation)
