"""The house: which file may import which, files on the disk, scripts without traces.

    pytest tests/test_layering.py

A file imports only from lower layers; only `ops.py` imports `kernels/`; `__init__.py` files are empty; nothing imports
`transformers`.
"""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    "config distributed entity_vocab files masking metrics ops_cpu packing spans tokenizer "
    "toyworld toyworld_facts toyworld_tasks views wiki_dump wikitext",
    "examples formats mentions ops optim pieces report stages tasks weights wikidata "
    "tokenizer_bpe tokenizer_sentencepiece tokenizer_wordpiece",
    "batching corpus corpus_report cost download inputs model progress recipes saves",
    "disambiguation_data forecast heads initialization trainer",
    "checkpoint",
    "entity_tools model_tools task_classification task_cloze task_disambiguation task_mlama task_ner task_qa task_relation task_typing",
    "finetuning pretraining",
    "export inference",
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names.split()}
# Layer 0 has a floor: these may be imported by its other files.
FLOOR = {"files", "packing", "spans", "toyworld", "toyworld_facts", "wikitext"}
OURS = sorted((ROOT / "luke_mini").glob("*.py"))
THIRD_PARTY = {"torch", "triton", "numpy", "sentencepiece", "safetensors", "tqdm"}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("luke_mini.")}


@pytest.mark.parametrize("path", [p for p in OURS if p.stem != "__init__"], ids=lambda p: p.stem)
def test_imports_point_down(path):
    assert path.stem in LAYER, f"{path.name} has no layer: add it to this test and to the README's tree"
    for name in own(imports(path)):
        allowed = LAYER[name] < LAYER[path.stem] or (name in FLOOR and LAYER[path.stem] == 0)
        assert allowed, f"{path.name} imports {name} from its own layer or above"


def test_every_layered_file_exists():
    assert {p.stem for p in OURS} - {"__init__"} == set(LAYER)


@pytest.mark.parametrize("path", [*OURS, *ROOT.glob("*.py")], ids=lambda p: p.stem)
def test_only_the_allowed_packages(path):
    for name in imports(path):
        top = name.split(".")[0]
        if top == "kernels":
            assert path.stem == "ops"
        else:
            assert top in {"luke_mini", *THIRD_PARTY} or top in sys.stdlib_module_names, f"{path.name} imports {name}"


def test_init_files_are_empty():
    for folder in ("luke_mini", "kernels"):
        assert (ROOT / folder / "__init__.py").read_bytes() == b""


def test_readme_tree_equals_the_disk():
    """The annotated tree of the README names every file of luke_mini/ and kernels/ and no other."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+\.py)`", text))
    ours, others = ({path.name for folder in folders for path in (ROOT / folder).glob("*.py")}
                    for folders in (("luke_mini", "kernels"), ("", "tests", "tests/bench")))  # fmt: skip
    assert ours - {"__init__.py"} <= named, "README.md does not name all files"
    assert named <= ours | others, "README.md names a file that does not exist"


def test_readme_has_its_two_commands():
    """Under "Two commands" stand two bash blocks: the run, and the tests, whose last line CI executes."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("\n## Two commands\n")[1].split("\n## ")[0]
    blocks = [block.split("```")[0].strip().splitlines() for block in section.split("```bash\n")[1:]]
    assert len(blocks) == 2 == text.count("```bash\n")
    assert blocks[0][0] == "pip install -r requirements.txt" and blocks[1][-1] == "python -m pytest -q -n 2 tests"
    for line in blocks[0][1:]:
        assert (ROOT / line.split()[1]).is_file()
