"""lookup, neighbours, add: on vocabularies written by hand, and on a tiny model.

    pytest tests/test_entity_tools.py

A new row is compared with the mean of what transformers' own masked-entity head computes for [MASK] at the mention.
"""

import json
from pathlib import Path

import pytest
import torch

from luke_mini import checkpoint, entity_tools, files
from luke_mini.entity_vocab import Entity, EntityVocab

SPECIAL = [Entity([(name, None)]) for name in ("[PAD]", "[UNK]", "[MASK]")]
MULTILINGUAL = EntityVocab.of([
    *SPECIAL, Entity([("Norway", "en"), ("Norwegen", "de")], 9, "Q20"), Entity([("Gift", "en")], 2),
    Entity([("Gift", "de")], 1), Entity([("3", "en")], 1, "Q201"), Entity([("[MASK2]", None)]),
])  # fmt: skip


def printed(capsys, *arguments) -> list[dict]:
    entity_tools.main([str(argument) for argument in arguments])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def data(tmp_path) -> Path:
    MULTILINGUAL.save(tmp_path / "entity_vocab.jsonl")
    (tmp_path / "redirects.tsv").write_text("Kingdom of Norway\tNorway\nNoreg\tKingdom of Norway\nElsewhere\tNowhere\n")
    return tmp_path


NORWAY = {"id": 3, "titles": ["en:Norway", "de:Norwegen"], "count": 9, "wikidata": "Q20",
          "redirects": ["Kingdom of Norway", "Noreg"]}  # fmt: skip


def test_lookup(data, capsys):
    for name in ("Norway", "de:Norwegen", "Norwegen", "Q20", "Noreg"):
        assert printed(capsys, "lookup", data, name) == [NORWAY]
    assert [shown["id"] for shown in printed(capsys, "lookup", data, "Gift")] == [4, 5]
    assert [shown["id"] for shown in printed(capsys, "lookup", data, "Gift", "--language", "de")] == [5]
    # a title of digits, and the id that is written like it
    assert [shown["id"] for shown in printed(capsys, "lookup", data, "3", "[MASK2]", "5")] == [3, 6, 7, 5]
    assert printed(capsys, "lookup", data, "de:Gift") == [{"id": 5, "titles": ["de:Gift"], "count": 1}]
    for wrong in ("Nowhere", "Q2", "99", "Elsewhere"):
        with pytest.raises(ValueError, match=f"'{wrong}' is none of its 8 entities"):
            entity_tools.main(["lookup", str(data), wrong])


def test_lookup_in_a_model_folder(tiny_checkpoint, tmp_path, capsys):
    assert printed(capsys, "lookup", tiny_checkpoint, "Oslo") == [{"id": 3, "titles": ["Oslo"]}]
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="no entity_vocab.jsonl, no entity_vocab.json"):
        entity_tools.main(["lookup", str(tmp_path), "Oslo"])


def test_neighbours():
    """Directions, not lengths; neither the entity itself nor [MASK]."""
    table = torch.tensor([[0.0, 0], [1, 0], [1, 1], [1, 1], [9, 1], [-1, -1], [0, 2], [1, 1], [5, 5]])
    found = entity_tools.neighbours(MULTILINGUAL, table, 3, 2)
    assert [row for row, _ in found] == [4, 6]
    assert found[0][1] == pytest.approx(10 / (82**0.5 * 2**0.5)) and found[1][1] == pytest.approx(0.5**0.5)
    assert [row for row, _ in entity_tools.neighbours(MULTILINGUAL, table, 3, 99)] == [4, 6, 5]


SENTENCES = ["She moved to <e>Zorvik</e> in May.", "<e>Zorvik</e> is a town, and <e>old Zorvik</e> its oldest part.",
             '{"text": "Bo met Zorvik.", "spans": [{"start": 7, "end": 13}]}']  # fmt: skip


@pytest.fixture
def texts(tmp_path) -> Path:
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES) + "\n\n")
    return tmp_path / "texts.txt"


def test_contexts(texts):
    found = [text[slice(*span)] for text, span in entity_tools.read_contexts(texts)]
    assert found == ["Zorvik", "Zorvik", "old Zorvik", "Zorvik"]
    for content, what in {
        "": "no mention, expected lines such as", "Ada\n": "line 1: the marks are missing",
        "<e>Ada</e>\n\n<e>Bo": "line 3: the marks are <e>",
        '{"text": "Bo", "spans": [{"start": 0, "end": 3}]}': "line 1, spans 1: fields 'start' and 'end' are 0 and 3",
    }.items():  # fmt: skip
        texts.write_text(content)
        with pytest.raises(ValueError, match=f"texts.txt.*{what}"):
            entity_tools.read_contexts(texts)


def test_add_from_texts(tiny_checkpoint, texts, tmp_path, capsys):
    """The row is the scaled mean of transformers' transformed states; nothing else of the model changes."""
    transformers = pytest.importorskip("transformers")
    out = tmp_path / "out"
    entity_tools.main(["add", str(tiny_checkpoint), "Zorvik", "--texts", str(texts), "--out", str(out)])
    assert "Zorvik has the id 5, from 4 of 4 mentions" in capsys.readouterr().out
    before, after = checkpoint.read(tiny_checkpoint), checkpoint.read(out)
    assert after.entity_vocab.id("Zorvik") == 5 and len(after.entity_vocab) == 6 == after.config.entity_vocab_size
    for name, tensor in before.weights.items():
        assert torch.equal(after.weights[name][: len(tensor)], tensor)

    model = transformers.LukeForMaskedLM.from_pretrained(out).eval()
    tokenizer = transformers.LukeTokenizer.from_pretrained(tiny_checkpoint)
    states = []
    for text, span in entity_tools.read_contexts(texts):
        given = tokenizer(text, entity_spans=[span], return_tensors="pt")
        hidden = model.luke(**given).entity_last_hidden_state
        states.append(model.entity_predictions.transform(hidden)[0, 0].detach())
    mean, oslo = torch.stack(states).mean(0), before.weights[entity_tools.TABLE][3]
    row = after.weights[entity_tools.TABLE][5]
    torch.testing.assert_close(row, mean * oslo.norm() / mean.norm(), rtol=1e-4, atol=1e-5)
    assert after.weights[entity_tools.BIAS][5] == before.weights[entity_tools.BIAS][3]
    assert given.entity_ids.tolist() == [[before.entity_vocab.mask_id]]


def test_add_uses_128_mentions(tiny):
    """The 129th would change the mean."""
    same, other = ("Ada met Bo.", (0, 3)), ("Oslo", (0, 4))
    (row, _), (fewer, _) = (entity_tools.row_from_contexts(tiny, [same] * n + [other]) for n in (128, 127))
    torch.testing.assert_close(row, entity_tools.row_from_contexts(tiny, [same])[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(row, fewer, rtol=1e-4, atol=1e-5)


def test_a_long_text_is_cut_around_the_mention(tiny):
    far = "Ada met Bo. " * 400
    (sequence,) = entity_tools.masked_sequences(tiny, [(f"{far}Oslo. {far}", (len(far), len(far) + 4))])
    start, end = sequence.spans[0]
    assert len(sequence.word_ids) <= 512 and tiny.tokenizer.decode(sequence.word_ids[start:end]).strip() == "Oslo"


def test_add_like_others(tiny_checkpoint, tmp_path, capsys):
    found = checkpoint.read(tiny_checkpoint)
    two = entity_tools.add(found, Entity([("Bergen", None)]), torch.full((16,), 3.0), torch.tensor(2.0))
    with files.write_folder(tmp_path / "two") as folder:
        checkpoint.write_files(folder, two)
    entity_tools.main(["add", str(tmp_path / "two"), "Zorvik", "--like", "Oslo", "5", "--out", str(tmp_path / "out")])
    table, bias = (checkpoint.read(tmp_path / "out").weights[name] for name in (entity_tools.TABLE, entity_tools.BIAS))
    assert torch.equal(table[6], table[[3, 5]].mean(0)) and bias[6] == bias[[3, 5]].mean()
    capsys.readouterr()
    assert [shown["titles"] for shown in printed(capsys, "neighbours", tmp_path / "out", "Zorvik", "--top", 2)] in (
        [["Oslo"], ["Bergen"]], [["Bergen"], ["Oslo"]])  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ("Oslo --texts TEXTS", "'Oslo' is there already, with the id 3"),
        ("Zorvik --like Nowhere", "'Nowhere' names no entity of the 5, expected one"),
        ("Zorvik --texts absent.txt", "absent.txt"),
        ("Zorvik --texts TEXTS --out TEXTS", "texts.txt: exists already"),
    ],
)
def test_nothing_is_written_for_bad_input(tiny_checkpoint, texts, tmp_path, arguments, what):
    command = f"add {tiny_checkpoint} {arguments}".replace("TEXTS", str(texts)).split()
    command += [] if "--out" in command else ["--out", str(tmp_path / "out")]
    with pytest.raises((ValueError, OSError), match=what):
        entity_tools.main(command)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts.txt"]


def test_nothing_half_written(tiny_checkpoint, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(EntityVocab, "save", lambda self, path: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(OSError):
        entity_tools.main(f"add {tiny_checkpoint} Zorvik --texts {texts} --out {tmp_path}/out".split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts.txt"]


def test_a_model_without_heads_needs_like(tiny, texts):
    weights = {name: tensor for name, tensor in tiny.weights.items() if name.startswith("luke.")}
    bare = entity_tools.replace(tiny, weights=weights)
    with pytest.raises(ValueError, match="no masked-entity head"):
        entity_tools.row_from_contexts(bare, entity_tools.read_contexts(texts))
    row, bias = entity_tools.row_like(bare, [3])
    assert torch.equal(row, tiny.weights[entity_tools.TABLE][3]) and bias == 0


def test_command_of_the_vocabulary(data, run_script):
    """The tool runs under the vocabulary's name, and an error is one line."""
    done = run_script("luke_mini.entity_vocab", "lookup", data, "Q20")
    assert (done.returncode, json.loads(done.stdout)) == (0, NORWAY)
    wrong = run_script("luke_mini.entity_vocab", "lookup", data, "Nowhere")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1
    assert wrong.stderr.startswith("luke_mini.entity_vocab: error: ")
