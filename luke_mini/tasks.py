"""The tasks as the command line shows them: names, files, formats, options. Nothing here takes torch to import.

So help, --describe and typing errors are answered at once. For each task: what its module does with these options is in
`task_<name>.py`, which unpacks its `Task` into NAME, FILES, Options and so on (`finetuning.py` has the whole list).
"""

from dataclasses import dataclass
from typing import NamedTuple

from luke_mini.config import option

SPECIAL = 2  # <s> and </s>


class Task(NamedTuple):
    name: str
    title: str  # of its main score
    summary: str
    files: tuple[dict[str, str], ...]  # names to look for in --data, one dict per data set: split -> names
    format: str  # the text of --describe: the published formats and our own JSON lines, with examples
    options: type  # frozen dataclass; each `config.option` field is a command-line flag
    all_entities: bool = False  # False: the task needs only the special entities, [MASK] and so on (a lite model)
    exports: bool = True  # --export takes its models
    trains: bool = True  # False: nothing is trained, the checkpoint's own heads are scored; files: test files alone


# --- Named entity recognition -----------------------------------------------------------------------------------------

CONLL = ("eng", "esp", "ned", "deu")  # the files of CoNLL-2002 and 2003


@dataclass(frozen=True)
class NerOptions:
    """What a candidate is and what the head sees. Defaults: CoNLL-2003 in the paper."""

    head: str = option("token+entity", "what the classifier sees of a candidate", ("token+entity", "entity", "token"))
    max_seq_length: int = option(512, "maximum tokens per input, with <s> and </s>")
    max_mention: int = option(16, "maximum tokens of a candidate")
    max_candidates: int = option(128, "candidates per input; a sentence with more becomes several inputs")
    scheme: str = option("auto", "tagging scheme; auto: that of most tags", ("auto", "IOB1", "IOB2", "IOBES"))
    language: str = option("en", "language of raw text, to split sentences")
    context: str = option("auto", "what a sentence is read with; auto: its document, or nothing where a file has none",
                          ("auto", "document", "sentence"))  # fmt: skip
    space_before_all: bool = option(False, "tokenize every word as if after a space, even punctuation (mLUKE)")

    def __post_init__(self):
        if not 1 <= self.max_mention <= self.max_seq_length - SPECIAL or self.max_candidates < 1:
            raise ValueError("expected 1 <= --max-mention <= --max-seq-length - 2 and --max-candidates at least 1")


NER = Task(
    "ner", "NER F1",
    "Named entity recognition: every span of a sentence is a candidate, and the model names its type or NIL.",
    (
        {split: " ".join(f"{name}.{ending}" for ending in ("conll", "txt", "bio", "jsonl") for name in names.split())
         for split, names in {"train": "train", "dev": "dev valid", "test": "test"}.items()},
        *({"train": f"{name}.train", "dev": f"{name}.testa", "test": f"{name}.testb"} for name in CONLL),
    ),
    """\
CoNLL-2002/2003: one word per line, columns between spaces or tabs, first = word, last = tag (IOB1, IOB2 or IOBES,
detected automatically), blank line = end of a sentence, -DOCSTART- line = a new document; UTF-8 or ISO-8859-1. No
column in front may count the words. A type may have spaces behind a tab. A sentence is read with what fits of its
document around it; without -DOCSTART- lines it stands alone:

    -DOCSTART- -X- O O

    Ada NNP I-NP I-PER
    visited VBD I-VP O
    Oslo NNP I-NP I-LOC

Your own texts: a .jsonl file, one document per line, half-open character spans, any label set; without mentions,
"spans" is []:

    {"text": "Ada visited Oslo.",
     "spans": [{"start": 0, "end": 3, "label": "PER"}, {"start": 12, "end": 16, "label": "LOC"}]}

Rules split such a text into words and sentences. To split it yourself, add "is_split": spaces then separate words, line
ends separate sentences. "scheme" sets the tags of the predictions file [IOB2], "encoding" is only logged:

    {"text": "Ada visited Oslo .\\nIt rained", "is_split": true, "scheme": "IOB1", "encoding": "utf-8", "spans": [...]}

--predict takes one text per line, or such a JSON line (its spans are ignored), and prints {"text", "mentions":
[{"text", "type", "start", "end", "probability"}]}.""",
    NerOptions,
)  # fmt: skip


# --- Relation classification ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RelationOptions:
    """What the model sees of an example. Defaults: TACRED in the LUKE paper."""

    head: str = option("entity", "what the classifier sees; token: the first markers",
                       ("entity", "token", "token+entity"))  # fmt: skip
    max_seq_length: int = option(512, "maximum tokens per input; longer texts are cut around the mentions")
    max_mention: int = option(30, "tokens of a mention that its position embedding averages")
    first_space: bool = option(True, "treat the first word as following a space; off: as transformers does")
    classifier_bias: bool = option(False, "a bias in the classifier (the mLUKE paper's runs)")

    def __post_init__(self):
        if self.max_seq_length < 8 or self.max_mention < 1:
            raise ValueError("expected --max-seq-length at least 8 and --max-mention at least 1")


RELATION = Task(
    "relation", "relation F1",
    "Relation classification: how a head and a tail, two mentions in a text, are related.",
    (
        {"train": "train.json train.txt train.jsonl", "dev": "dev.json dev.txt dev.jsonl",
         "test": "test.json test.txt test.jsonl"},
        {"train": "KBP37_train.txt", "dev": "KBP37_dev.txt", "test": "KBP37_test.txt RELX_en.txt"},
    ),
    """\
TACRED: a .json file, a list of objects; subject and object are tokens, the last one is part of the span:

    [{"id": "e1", "relation": "per:title", "token": ["Ada", "is", "a", "chemist", "."],
      "subj_start": 0, "subj_end": 0, "obj_start": 3, "obj_end": 3}]

KBP37 and RELX: a .txt file, blocks of two lines (id, tab, sentence; label) with blank lines between them; SemEval-2010
likewise, whose Comment: lines are left out:

    1	" <e1> Ada </e1> works for <e2> Acme </e2> . "
    per:employee_of(e1,e2)

Your own texts: a .jsonl file, half-open character spans, any labels. The label no_relation stands for none and is never
a true positive; labels that end in (e1,e2) or (e2,e1) have a direction:

    {"text": "Ada is a chemist.", "head": {"start": 0, "end": 3}, "tail": {"start": 9, "end": 16}, "label": "title"}

--predict takes one text per line, either with <e1> </e1> and <e2> </e2> around head and tail or as such a JSON line
without a label, and prints {"text", "head", "tail", "label", "probability"}.""",
    RelationOptions,
)  # fmt: skip


# --- Entity typing ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TypingOptions:
    """What the model sees of an example. Defaults: Open Entity in the LUKE paper."""

    head: str = option("entity", "what the classifier sees: the entity, or the marker before it", ("entity", "token"))
    types: str = option("general", "which published types: the nine general ones, or all", ("general", "all"))
    max_seq_length: int = option(512, "maximum tokens per input; longer texts are cut around the mention")
    max_mention: int = option(30, "tokens of a mention that its position embedding averages")
    first_space: bool = option(True, "treat the first word as following a space; off: as transformers does")

    def __post_init__(self):
        if self.max_seq_length < 8 or self.max_mention < 1:
            raise ValueError("expected --max-seq-length at least 8 and --max-mention at least 1")


TYPING = Task(
    "typing", "typing F1",
    "Entity typing: what kinds of thing a mention is; none, one or many types.",
    (
        {split: f"{split}.json {split}.jsonl" for split in ("train", "dev", "test")},
        {split: f"open_entity_{split}.jsonl" for split in ("train", "dev", "test")},
    ),
    """\
Open Entity as the LUKE paper's runs had it: a list of objects, half-open character spans:

    [{"sent": "Ada met the mayor .", "start": 8, "end": 17, "labels": ["person"]}]

Open Entity as published (crowd/train.json and so on), an object a line; of its types, the nine general ones are kept,
or all with --types all:

    {"y_str": ["time", "date"], "left_context_token": ["On"], "mention_span": "Monday", "right_context_token": ["."]}

Your own texts: a .jsonl file, half-open character spans, types as you like:

    {"text": "Ada met the mayor.", "spans": [{"start": 0, "end": 3, "labels": ["person", "chemist"]}]}

--predict takes one text a line, either with <e> </e> around each mention or as such a JSON line without labels, and
prints {"text", "mentions": [{"text", "start", "end", "types": [{"type", "probability"}]}]}.""",
    TypingOptions,
)  # fmt: skip


# --- Extractive question answering ------------------------------------------------------------------------------------

AUTO, NONE = "auto", "none"  # instead of a file's name
METRICS = ("squad", "squad2", "mlqa", "jsquad")


@dataclass(frozen=True)
class QaOptions:
    """How a context is read, and answers are chosen. Defaults: SQuAD 1.1 in the LUKE paper.

    mLUKE's runs: max_seq_length 384, overlap 128. In the name of a file of mentions, {language} stands for the language
    of the text and {context} for that of the context: `{context}-{language}.json` for MLQA. XQuAD's pages have English
    titles in every language: `en-{language}.json`.
    """

    max_seq_length: int = option(512, "maximum tokens per input, with <s> and </s>")
    max_query_length: int = option(64, "maximum tokens of a question; longer ones are truncated")
    doc_stride: int = option(128, "tokens from one window to the next")
    overlap: int = option(0, "tokens shared by two windows, instead of --doc-stride; 0 = use --doc-stride")
    max_answer: int = option(30, "maximum tokens of an answer")
    n_best_size: int = option(20, "starts, ends and answers to consider")
    null_threshold: float = option(0.0, "SQuAD 2.0: null odds above this mean no answer")
    max_entities: int = option(128, "maximum mentions per input; others are dropped")
    candidates: str = option("", "file of each page's mentions; {language} and {context} in its name: see Options")
    ignore_case: bool = option(True, "with --candidates: ignore case (LUKE: yes, mLUKE: no)")
    mentions: str = option(AUTO, "a file of mention statistics instead; auto: the one at hand; none: words only")
    min_link_probability: float = option(0.01, "with --mentions: minimum link probability of a mention")
    train_entity_table: bool = option(False, "train the entity embeddings (published: frozen)")
    metric: str = option(AUTO, "metric; auto: from the file name and its questions", (AUTO, *METRICS))
    language: str = option("", "language of the contexts, if the file name does not imply it [en]")
    question_language: str = option("", "language of the questions, if different and not implied by the file name")

    def __post_init__(self):
        if not 1 <= self.max_query_length <= self.max_seq_length - 5:
            raise ValueError("expected 1 <= --max-query-length <= --max-seq-length - 5, to leave room for the context")
        if self.candidates and self.mentions not in (AUTO, NONE):
            raise ValueError("--candidates and --mentions: expected one of them")
        for name in ("doc_stride", "max_answer", "n_best_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 1")


QA = Task(
    "qa", "QA F1",
    "Extractive question answering: the answer is a stretch of a given text, the context.",
    (
        *({split: f"{split}-v{n}.json" for split in ("train", "dev", "test")} for n in ("1.1", "2.0")),
        *({"train": f"train-v{n}.json", "dev": f"valid-v{n}.json", "test": f"test-v{n}.json"}  # JSQuAD
          for n in ("1.3", "1.2", "1.1", "1.0")),
        {split: f"{split}.jsonl" for split in ("train", "dev", "test")},
    ),
    """\
SQuAD 1.1 and 2.0, XQuAD (xquad.LANGUAGE.json), MLQA (test-context-LANGUAGE-question-LANGUAGE.json), JSQuAD (in a folder
or file called jsquad...); answer_start counts characters of the context:

    {"version": "1.1", "data": [{"title": "Oslo", "paragraphs": [{"context": "Oslo is the capital of Norway.", "qas": [
     {"id": "q1", "question": "What is the capital of Norway?", "answers": [{"text": "Oslo", "answer_start": 0}]}]}]}]}

Your own: a .jsonl file, one question a line, half-open character spans of the context; without answers the question
has none (as in SQuAD 2.0). "id" and "title" (the page, for --candidates) may be left out; an accepted answer that is
not in the context is {"text": ...}:

    {"question": "What is the capital of Norway?", "context": "Oslo is it.", "answers": [{"start": 0, "end": 4}]}

--predict takes such lines, or a question, a tab and its context, and prints for each {"id", "question", "context",
"answer", "answers": [{"text", "start", "end", "probability"}], "null_odds"}. null_odds > 0: "no answer" is more likely;
with --metric squad2 the answer is then "".""",
    QaOptions, all_entities=True,
)  # fmt: skip


# --- Cloze questions --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClozeOptions:
    """What a window is. Defaults: ReCoRD in the paper."""

    max_seq_length: int = option(512, "maximum tokens per input")
    max_query_length: int = option(90, "maximum tokens of the query; longer ones are cut around the placeholder")
    doc_stride: int = option(128, "tokens from one window to the next")
    max_mention: int = option(30, "tokens of a mention that its position embedding averages")

    def __post_init__(self):
        if not 1 <= self.max_query_length <= self.max_seq_length - 7 or self.doc_stride < 1 or self.max_mention < 1:
            raise ValueError("expected 1 <= --max-query-length <= --max-seq-length - 7, and --doc-stride and "
                             "--max-mention at least 1")  # fmt: skip


CLOZE = Task(
    "cloze", "cloze exact match",
    "Cloze questions: which of the names in a passage was cut out of a sentence? ReCoRD (LUKE paper, section 4.4).",
    ({"train": "train.json train.jsonl", "dev": "dev.json dev.jsonl val.jsonl", "test": "test.json test.jsonl"},),
    """\
ReCoRD: a .json file; "end" is the last character of a mention, and "@placeholder" is once in each query:

    {"data": [{"passage": {"text": "Ada met Bo in Oslo.\\n@highlight\\nBo was happy",
               "entities": [{"start": 0, "end": 2}, {"start": 8, "end": 9}, {"start": 14, "end": 17}, ...]},
               "qas": [{"id": "q1", "query": "Later @placeholder left with Ada",
                        "answers": [{"start": 8, "end": 9, "text": "Bo"}, ...]}]}]}

SuperGLUE and FewGLUE: a .jsonl file of such objects with "passage" and "qas", one a line.

Your own: a .jsonl file, one question a line, half-open character spans; mentions whose text is an answer are right, or
only those that "gold" lists as it is done in "spans":

    {"text": "Ada met Bo in Oslo.", "spans": [{"start": 0, "end": 3}, {"start": 8, "end": 10}],
     "query": "Later @placeholder left with Ada", "answers": ["Bo"]}

--predict takes such a line without answers ("id" is optional) and prints {"id", "text", "query", "answer",
"mentions": [{"text", "start", "end", "probability"}]}, the best mention first.""",
    ClozeOptions, exports=False,
)  # fmt: skip


# --- Entity disambiguation --------------------------------------------------------------------------------------------

SPLITS = ("simple", "per_mention")


@dataclass(frozen=True)
class DisambiguationOptions:
    """Inputs, candidates and decoding. Defaults: AIDA-CoNLL in the paper."""

    order: str = option("confidence", "order of decisions; local: all at once", ("confidence", "natural", "local"))
    split: str = option("simple", "training: long documents in equal parts, or in a window per mention", SPLITS)
    scored_split: str = option("per_mention", "the same for files that are scored", SPLITS)
    max_seq_length: int = option(512, "maximum tokens per input")
    max_mention: int = option(30, "tokens of a mention that its position embedding averages")
    max_entities: int = option(128, "mentions per input; a document with more becomes several inputs")
    max_candidates: int = option(30, "candidates per mention, by prior")
    mask_share: float = option(0.9, "fraction of a document's mentions to mask in training")
    mentions: str = option("", "file of mention statistics, for candidates")
    persons: str = option("", "file of titles of persons: a surname takes the candidates of full names")
    pprforned: str = option("", "folder of PPRforNED's AIDA_candidates, to take them in place of the file's")
    redirects: str = option("", "file of lines `title TAB title that it leads to`, for titles of other times")
    titles: str = option("", "file of valid titles; mentions with another one are left out")
    language: str = option("", "language of the titles, if the vocabulary has several")
    min_link_probability: float = option(0.1, "minimum link probability of a mention, for --predict on plain text")
    # Answers for own text: see `choose_mix`. Files are scored as published, by the model alone.
    model_weight: float = option(1.0, "weight of the model's scores, the others' is the prior's; 1: as published")
    min_probability: float = option(0.0, "mentions whose best candidate is less probable get no title")
    mentions_alone: bool = option(False, "where the text of a WNED file is missing, take its mentions as the text")

    def __post_init__(self):
        if self.max_seq_length <= SPECIAL or min(self.max_mention, self.max_entities, self.max_candidates) < 1:
            raise ValueError(f"expected --max-seq-length above {SPECIAL}, --max-mention, --max-entities and "
                             "--max-candidates at least 1")  # fmt: skip
        if not 0 < self.mask_share <= 1:
            raise ValueError(f"--mask-share {self.mask_share} must lie in (0, 1]")
        if not 0 <= self.model_weight <= 1:
            raise ValueError(f"--model-weight {self.model_weight} must lie in [0, 1]")


DISAMBIGUATION = Task(
    "disambiguation", "entity disambiguation, in-KB accuracy",
    "Entity disambiguation: which entity does each mention mean? Decided for all mentions of a document together.",
    (
        {split: f"{split}/{split}.xml {split}.jsonl" for split in ("train", "dev", "test")},
        {"train": "aida_train.csv", "dev": "aida_testA.csv", "test": "aida_testB.csv"},
    ),
    """\
WNED (MSNBC, AQUAINT, ACE2004, CWEB, WIKI): an .xml file; the texts are in RawText/ beside it, by the documents' names:

    <msnbc.entityAnnotation><document docName="3683270"><annotation>
        <mention>Oslo</mention><wikiName>Oslo</wikiName><offset>46</offset><length>4</length></annotation> ...

AIDA-CoNLL and WNED as Le & Titov have them: a .csv file of mentions with candidates (id,prior,title), columns between
tabs, and beside it the words: aida_train.txt, testa_testb_aggregate_original, msnbc.conll for wned-msnbc.csv:

    1testb OSLO  1testb OSLO  Ada  left words  right words
        CANDIDATES  11,0.7,Ada Lovelace  12,0.3,Ada, Oklahoma  GT:  0,11,0.7,Ada Lovelace    (all one line)

Your own: a .jsonl file, one document a line, half-open character spans; a span without "title" is not scored, and
"skipped" counts mentions that were left out, as their title is no article:

    {"text": "Ada was here.", "spans": [{"start": 0, "end": 3, "title": "Ada Lovelace",
                                         "candidates": {"Ada Lovelace": 0.7, "Ada, Oklahoma": 0.3}}], "skipped": 0}

Mentions without candidates in the file have those of the mention statistics that prepare_wiki.py writes: --mentions, or
mentions.safetensors in the file's folder or one of the three above it.

--predict takes such a line without titles, or plain text, whose mentions are then found by the statistics, and prints
{"text", "mentions": [{"text", "start", "end", "title", "probability", "address", "wikidata", "candidates": [{"title",
"prior", "model"}]}]}. "title" is null below --min-probability; "model" is the model's probability of the candidate among
all; "address" is there if the dump named its wiki, "wikidata" if the data were prepared with --wikidata.""",
    DisambiguationOptions, all_entities=True, exports=False,
)  # fmt: skip


# --- Text classification ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassificationOptions:
    max_seq_length: int = option(512, "maximum tokens per input; longer texts are truncated")
    numbers: str = option("regression", "how to read labels that are numbers", ("regression", "classes"))

    def __post_init__(self):
        if self.max_seq_length < 8:
            raise ValueError(f"--max-seq-length {self.max_seq_length}: expected at least 8")


CLASSIFICATION = Task(
    "classification", "classification score",
    "Text classification: one text or two, and a class, a number or the right choice (LUKE-Japanese on JGLUE).",
    (
        {"train": "train.json train.jsonl", "dev": "dev.json valid.json dev.jsonl", "test": "test.json test.jsonl"},
        *({"train": f"train-v{n}.json", "dev": f"valid-v{n}.json", "test": f"test-v{n}.json"}
          for n in ("1.3", "1.2", "1.1", "1.0")),
        {split: f"single/{split}.json" for split in ("train", "dev", "test")},
    ),
    """\
JGLUE, an object a line; the fields say which of the forms it is, and further fields do not matter. A text as label is
a class, a number is a number to come near to (or a class, with --numbers classes). One text (MARC-ja):

    {"sentence": "Ada is a fine chemist.", "label": "positive"}

Two texts (JNLI and JSTS):

    {"sentence1": "Ada sleeps.", "sentence2": "Ada runs.", "label": "contradiction"}
    {"sentence1": "Ada sleeps.", "sentence2": "Bo sleeps.", "label": 3.5}

A question with any number of choices, label = number of the right one, from 0 (JCommonsenseQA):

    {"question": "What is cold?", "choice0": "fire", "choice1": "ice", "choice2": "soup", "label": 1}

Your own texts: a .jsonl file of the same forms, which may also be written

    {"text": "Ada is a fine chemist.", "label": "positive"}
    {"text": "Ada sleeps.", "text_pair": "Ada runs.", "label": "contradiction"}
    {"question": "What is cold?", "choices": ["fire", "ice", "soup"], "label": 1}

--predict takes such lines without labels, or plain texts, tabs between two texts or a question and its choices. It
prints {"texts": [...], "label", "probability"}, and without a probability if the label is a number to come near to.""",
    ClassificationOptions,
)  # fmt: skip


# --- mLAMA ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MlamaOptions:
    subject: str = option("title", "the subject's entity: its own, [MASK] or none", ("title", "mask", "none"))
    words_only: bool = option(False, "no entities at all, as for a model of words")
    objects: str = option("", "folder of TREx_multilingual_objects/ and GoogleRE_objects/, if they are elsewhere")
    max_seq_length: int = option(512, "maximum tokens per input; candidates that exceed it get no score")


MLAMA = Task(
    "mlama", "mLAMA top 1 by words",
    "mLAMA: does a pretrained model know facts? Cloze questions, answered by its own heads; nothing is trained.",
    ({"test": "mlama1.1/en en"},),
    """\
mLAMA 1.1: a folder for each language, named as the language. In it templates.jsonl, subject and object in any order,

    {"relation": "P36", "template": "[X] has the capital [Y] ."}

and for each relation a file of facts, P36.jsonl; a subject may have several objects:

    {"sub_label": "Norway", "obj_label": "Oslo"}

The candidates are the objects of the relation in objects.json in this folder, and in TREx_multilingual_objects/en.json
and GoogleRE_objects/en.json one or two folders above it or in --objects DIR. Without such a file: those of P36.jsonl.

    {"P36": {"subjects": ["Norway"], "objects": ["Oslo", "Cape Town"]}}

--test takes any number of languages: --test mlama1.1/*. Your own questions: files as these, or a .jsonl file of

    {"language": "en", "relation": "P36", "template": "[X] has the capital [Y] .", "candidates": ["Oslo", "Cape Town"],
     "facts": [{"subject": "Norway", "answers": ["Oslo"]}]}

--predict takes one question a line and prints {"question", "words": [{"candidate", "score"}], "entities": [...]}, the
likeliest first:

    {"template": "[X] has the capital [Y] .", "subject": "Norway", "candidates": ["Oslo", "Cape Town"]}""",
    MlamaOptions, all_entities=True, exports=False, trains=False,
)  # fmt: skip


TASKS = {task.name: task for task in (NER, RELATION, TYPING, QA, CLOZE, DISAMBIGUATION, CLASSIFICATION, MLAMA)}
