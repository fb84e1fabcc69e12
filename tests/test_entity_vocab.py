"""The entity vocabulary: order, options, redirects, three file formats.

    pytest tests/test_entity_vocab.py
"""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luke_mini.entity_vocab import MAX_REDIRECTS, EntityVocab, resolve_counts, resolve_redirect

COUNTS = {"Oslo": 5, "Bergen": 5, "Norway": 9, "Category:Cities": 7, "Ada Lie": 1, "Nowhere": 8}
PAGES = {title: count for title, count in COUNTS.items() if title != "Nowhere"}


def titles(vocab: EntityVocab) -> list[str]:
    return [vocab.title(k) for k in range(len(vocab))]


def test_worked_example():
    """By count, ties by title; no category; [MASK2] last."""
    vocab = EntityVocab.build({"en": PAGES}, 100)
    assert titles(vocab) == ["[PAD]", "[UNK]", "[MASK]", "Norway", "Bergen", "Oslo", "Ada Lie", "[MASK2]"]
    assert (vocab.pad_id, vocab.unk_id, vocab.mask_id, vocab.mask2_id) == (0, 1, 2, 7)
    assert vocab.id("Oslo") == vocab.id("Oslo", "en") == vocab.id("en:Oslo") == 5
    assert (vocab.id("Nowhere"), vocab.get("Nowhere"), vocab.get("Nowhere", default=-1)) == (1, None, -1)
    assert vocab.id("[MASK]", "en") == 2
    for wrong in (8, -1):
        with pytest.raises(IndexError):
            vocab.title(wrong)


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        (6, {}, ["Norway", "Nowhere"]),  # the size counts the special entities
        (4, {}, []),
        (100, {"min_count": 6}, ["Norway", "Nowhere"]),
        # before Bergen and Oslo, though linked only once
        (6, {"allowlist": {"Ada Lie", "Never linked"}}, ["Norway", "Ada Lie"]),
        (100, {"allowlist": {"Oslo", "Category:Cities"}, "min_count": 10**9}, ["Category:Cities", "Oslo"]),
    ],
)
def test_options(size, options, expected):
    options = options | {"allowlist": {(title, None) for title in options.get("allowlist", ())}}
    for counts in (COUNTS, dict(reversed(COUNTS.items()))):  # their order does not matter
        assert titles(EntityVocab.build({None: counts}, size, **options))[3:-1] == expected


@pytest.mark.parametrize(("size", "allowlist", "least"), [(3, [], 4), (5, ["Oslo", "Nowhere"], 6)])
def test_too_small_a_vocabulary(size, allowlist, least):
    message = f"vocabulary of {size}: special and listed entities need at least {least}"
    with pytest.raises(ValueError, match=message):
        EntityVocab.build({None: COUNTS}, size, allowlist={(title, None) for title in allowlist})


def test_redirects():
    redirects = {"A": "B", "B": "C", "Loop 1": "Loop 2", "Loop 2": "Loop 1", "Into": "Loop 1", "Self": "Self"}
    ends = {"A": "C", "C": "C"} | {title: title for title in ("Loop 1", "Loop 2", "Into", "Self")}
    assert {title: resolve_redirect(title, redirects) for title in ends} == ends
    chain = {str(k): str(k + 1) for k in range(30)}
    assert resolve_redirect("0", chain) == str(MAX_REDIRECTS)
    assert resolve_counts({"A": 1, "B": 2, "C": 4, "D": 8}, redirects) == Counter({"C": 7, "D": 8})


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("abcdef")), st.sampled_from("abcdef"))
def test_redirects_end_at_no_redirect_or_at_the_start(redirects, title):
    target = resolve_redirect(title, redirects)
    assert target == title or target not in redirects  # six titles: a chain is never longer than 10


def test_link_table():
    vocab = EntityVocab.build({"en": COUNTS}, 100)
    table = vocab.link_table({"Christiania": "Oslo", "Kristiania": "Christiania", "X": "Unknown", "Loop": "Loop"}, "en")
    assert table["Kristiania"] == table["Christiania"] == table["Oslo"] == vocab.id("Oslo")
    assert table.keys() == COUNTS.keys() - {"Category:Cities"} | {"Kristiania", "Christiania"}
    assert vocab.link_table({}) == {title: vocab.id(title) for title in COUNTS if title != "Category:Cities"}


MULTILINGUAL = [
    *([(name, None)] for name in ("[PAD]", "[UNK]", "[MASK]")),
    [("Norway", "en"), ("Norwegen", "de"), ("ノルウェー", "ja")],
    [("Gift", "en")],
    [("Gift", "de")],  # poison: the same title means another entity
    [("2001: A Space Odyssey", "en"), ('Quote " and \\', "de")],
    [("[MASK2]", None)],
]


@pytest.mark.parametrize("name", ["vocab.jsonl", "vocab.json"])
def test_multilingual_round_trip(tmp_path, name):
    EntityVocab(MULTILINGUAL, list(range(8))).save(tmp_path / name)
    vocab = EntityVocab.load(tmp_path / name)
    assert len(vocab) == 8 and vocab.languages == ["de", "en", "ja"]
    assert vocab.id("Norwegen", "de") == vocab.id("Norway", "en") == vocab.id("ja:ノルウェー") == 3
    assert (vocab.id("Gift", "en"), vocab.id("Gift", "de"), vocab.id("Gift")) == (4, 5, vocab.unk_id)
    assert vocab.title(3, "de") == "Norwegen" and vocab.title(3) == "Norway" and vocab.title(4, "ja") == "Gift"
    assert vocab.id("2001: A Space Odyssey", "en") == 6 and vocab.mask2_id == 7
    EntityVocab.load(tmp_path / name).save(tmp_path / "again.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "again.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["count"] for line in lines] == (list(range(8)) if name == "vocab.jsonl" else [0] * 8)


@pytest.mark.parametrize("name", ["vocab.jsonl", "vocab.json"])
def test_single_language_round_trip(tmp_path, name):
    built = EntityVocab.build({"de": {**COUNTS, "Ende: ein Film": 3}}, 100)
    built.save(tmp_path / name)
    vocab = EntityVocab.load(tmp_path / name)
    assert titles(vocab) == titles(built)
    assert all(vocab.id(title) == vocab.id(title, "de") == built.id(title) for title in titles(built))
    if name.endswith(".json"):  # as in the released LUKE: bare titles
        assert json.loads((tmp_path / name).read_text(encoding="utf-8"))["Oslo"] == built.id("Oslo")


@pytest.mark.parametrize("name", ["vocab.jsonl", "vocab.json"])
def test_own_ids_that_look_like_languages(tmp_path, name):
    """"umls:C1" is a title here, not C1 in the language umls."""
    built = EntityVocab.build({"en": {"umls:C1": 3, "umls:C2": 2, "mesh:D1#x": 1}}, 100)
    built.save(tmp_path / name)
    vocab = EntityVocab.load(tmp_path / name)
    assert titles(vocab) == titles(built) and vocab.languages == ["en"]
    assert [vocab.id(title) for title in ("umls:C1", "umls:C2", "mesh:D1#x", "C1")] == [3, 4, 5, vocab.unk_id]


@pytest.mark.parametrize(
    ("content", "ids", "special"),
    [
        ("[PAD]\t0\n[UNK]\t0\n[MASK]\t0\nUnited States\t261500\nC\tD\t7\n",  # LUKE's tsv
         {("United States", None): 3, ("C\tD", None): 4}, (0, 1, 2, None)),
        ('{"[MASK]": 0, "[UNK]": 1, "[PAD]": 2, "[MASK2]": 3}', {}, (2, 1, 0, 3)),  # a lite model's order
        ('{\n  "[PAD]": 0, "[UNK]": 1,\n "[MASK]": 2, "en:Norway": 3, "de:Norwegen": 3, "simple:Norway": 3}',
         {("Norwegen", "de"): 3, ("Norway", "simple"): 3, ("Norway", "de"): 1}, (0, 1, 2, None)),
    ],
)  # fmt: skip
def test_reads_released_files(tmp_path, content, ids, special):
    (tmp_path / "file").write_text(content, encoding="utf-8")
    vocab = EntityVocab.load(tmp_path / "file")
    assert (vocab.pad_id, vocab.unk_id, vocab.mask_id, vocab.mask2_id) == special
    assert {name: vocab.id(*name) for name in ids} == ids


SPECIAL_LINES = "".join(
    f'{{"id": {k}, "entities": [["{name}", null]]}}\n' for k, name in enumerate(["[PAD]", "[UNK]", "[MASK]"])
)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "no special entity"),
        ("Norway\t3\n", r"\[PAD\] \[UNK\] \[MASK\]"),
        ("[PAD]\t0\nNorway\n", "line 2"),
        ('{"[PAD]": 0, "[UNK]": 1, "[MASK]": 3}', "without a gap"),
        ('{"[PAD]": 0, "[UNK]": "1"}', "one JSON object"),
        ('{"[PAD]": 0, "[UN', "line 1"),
        (SPECIAL_LINES + '{"id": 9, "entities": [["A", "en"]]}\n', 'line 4: expected {"id": 3'),
        (SPECIAL_LINES + '{"id": 3}\n', "line 4"),
        (SPECIAL_LINES + '{"id": 3, "enti', "line 4"),
        (SPECIAL_LINES + '{"id": 3, "entities": [["A", "en"]]}\n{"id": 4, "entities": [["A", "en"]]}\n', "'A'"),
    ],
)
def test_bad_files_give_one_line_with_their_name(tmp_path, content, what):
    path = tmp_path / "entity_vocab.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=what) as error:
        EntityVocab.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_for_release(tmp_path):
    """[MASK2] comes last if it is missing; language prefixes, even for a single language."""
    lukes = EntityVocab.from_titles(["[PAD]", "[UNK]", "[MASK]", "Oslo"]).for_release()
    assert titles(lukes)[3:] == ["Oslo", "[MASK2]"] and lukes.mask2_id == 4
    vocab = EntityVocab.build({"de": {"Oslo": 2}}, 9).for_release()
    vocab.save(tmp_path / "vocab.json")
    keys = {"[PAD]": 0, "[UNK]": 1, "[MASK]": 2, "de:Oslo": 3, "[MASK2]": 4}
    assert json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8")) == keys


def test_vocabulary_of_a_folder(tmp_path):
    assert EntityVocab.of_folder(tmp_path) is None
    config = '{"entity_vocab": {"[MASK]": 0, "[UNK]": 1, "[PAD]": 2}}'
    (tmp_path / "tokenizer_config.json").write_text(config, encoding="utf-8")
    assert EntityVocab.of_folder(tmp_path).mask_id == 0
