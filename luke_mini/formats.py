"""Published data files as records of our own JSON-lines form, so that every task reads one form only.

    ner              CoNLL-2002, CoNLL-2003 and other files of one word per line with a tag
    typing           Open Entity, as published or as LUKE's authors had it; ultra-fine types
    relation         TACRED; KBP37 and RELX
    cloze            ReCoRD, in its own file or in SuperGLUE's
    qa               SQuAD 1.1 and 2.0, XQuAD, MLQA, JSQuAD
    classification   JGLUE: MARC-ja, JNLI, JSTS, JCommonsenseQA
    mlama            mLAMA

In: a file. Out: `Record`s, whose fields the FORMAT text of each task describes; records that are in that form already
pass as they are. `finetune.py TASK --to-jsonl FILE` prints them. Lines with marks around mentions, for --predict, are
the same form. Errors name the file, the line and the field of the published form.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain, groupby
from pathlib import Path
from urllib.parse import unquote

from luke_mini import files
from luke_mini.files import Record
from luke_mini.metrics import chunks

# --- Named entities ---------------------------------------------------------------------------------------------------

Tagged = tuple[list[str], list[str]]  # the words of a sentence and their tags


def conll(path: str | Path, scheme: str = "auto", context: str = "document") -> list[Record]:
    """{"text", "is_split": true, "spans": [{"start", "end", "label"}], "scheme", "encoding"}, one for each document.

    Its text has a space between words, a line end between sentences. context: "sentence" makes each sentence a document
    of its own, "auto" does where no `-DOCSTART-` line says what belongs together; with "document" such a file is one.
    scheme: naming one ("IOB1", "IOB2", "IOBES") does not change how tags are read (`metrics.chunks`), but a file that
    is mostly another is an error. Behind a tab, the type of a tag may have spaces ("B-work of art"). Left out: BILOU,
    nested tags. A first column that only counts the words (GermEval, CoNLL-U) is an error, or "1" would be learned.
    """
    text, encoding = _decoded(path)
    documents, are_marked = _tagged_documents(path, text)
    if not documents:
        raise ValueError(f"{path}: no sentence, expected lines of a word, a space and a tag")
    _check_words([words for document in documents for words, _ in document], path)
    found = _tag_scheme([tags for document in documents for _, tags in document])
    found = found or ("IOB2" if scheme == "auto" else scheme)
    if scheme not in ("auto", found):
        raise ValueError(f"{path}: the tags are {found}, expected {scheme}")
    if context == "sentence" or (context == "auto" and not are_marked):
        documents = [[sentence] for document in documents for sentence in document]
    return [
        Record(f"{path}, document {i}", _with_spans(document) | {"scheme": found, "encoding": encoding})
        for i, document in enumerate(documents, start=1)
    ]


def _decoded(path: str | Path) -> tuple[str, str]:
    """Text and encoding, which is ISO-8859-1 in the German, Spanish and Dutch files as first released.

    ValueError naming the line of the first faulty byte of a file that is UTF-8 otherwise, by most of its other bytes.
    """
    raw = Path(path).read_bytes()
    try:
        return raw.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError as error:
        text = raw.decode("utf-8", "replace")
        faulty, beyond_ascii = text.count("\ufffd"), len(text) - len(text.encode("ascii", "ignore"))
        if beyond_ascii >= 2 * faulty:
            number = raw.count(b"\n", 0, error.start) + 1
            raise ValueError(f"{path}, line {number}: not UTF-8 text ({error.reason}), as the rest is") from None
        print(f"{path}: read as ISO-8859-1, as it is not UTF-8 ({error.reason} at byte {error.start})")
        return raw.decode("iso-8859-1"), "iso-8859-1"


def _tagged_documents(path: str | Path, text: str) -> tuple[list[list[Tagged]], bool]:
    """Documents of sentences, none of them empty; whether the file marks where they begin."""
    documents, n_columns = [[([], [])]], 0
    # Not splitlines(), not split(): both also break at characters such as U+0085 and U+00A0, which occur as words.
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip(" \t\r")
        if line.startswith("-DOCSTART"):
            documents.append([([], [])])
        elif not line:
            documents[-1].append(([], []))
        else:
            columns = _columns(line)
            n_columns = n_columns or len(columns)
            if len(columns) != n_columns or n_columns < 2:
                expected = f"{n_columns} as above" if n_columns > 1 else "at least 2"
                raise ValueError(f"{path}, line {number}: {len(columns)} columns, expected {expected}: word ... tag")
            if not re.fullmatch("O|[BIES]-.+", columns[-1]) or re.search("[|,;/+#]([BIES]-|O$)", columns[-1]):
                held = f"{path}, line {number}: last column {columns[-1]!r}"
                raise ValueError(f"{held}, expected one tag: O or one of B- I- E- S- and a type")
            words, tags = documents[-1][-1]
            words.append(columns[0])
            tags.append(columns[-1])
    kept = [[sentence for sentence in document if sentence[0]] for document in documents]
    return [document for document in kept if document], len(documents) > 1


def _columns(line: str) -> list[str]:
    """Its cells, between spaces or tabs; behind a tab, the last may have spaces if it is a tag."""
    rest, _, tag = line.rpartition("\t")
    if rest and re.match(" *[BIES]-", tag):
        return [*re.split(r"[ \t]+", rest.rstrip()), tag.strip()]
    return re.split(r"[ \t]+", line)


def _check_words(sentences: list[list[str]], path: str | Path) -> None:
    """ValueError if all words are numbers, and in each sentence they count."""

    def counts(words: list[str]) -> bool:
        whole = [int(word) for word in words if word.isdecimal()]  # CoNLL-U also has ranges, 3-4, and fractions, 5.1
        in_order = whole and whole == [*range(whole[0], whole[0] + len(whole))]
        return bool(in_order) and all(re.fullmatch(r"\d+([-.]\d+)?", word) for word in words)

    if max(map(len, sentences)) > 1 and all(map(counts, sentences)):
        shown = " ".join(max(sentences, key=len)[:3])
        raise ValueError(f"{path}: the first column counts the words ({shown} ...), expected the words there")


def _tag_scheme(sentences: list[list[str]]) -> str | None:
    """By how most mentions open; None without mentions."""
    openings = Counter()
    for tags in sentences:
        for start, _, kind in chunks(tags):
            # Right after a mention of its own type, one opens with B in IOB1 as in IOB2: that does not tell.
            if start == 0 or tags[start - 1][2:] != kind:
                openings[tags[start][0]] += 1
    if any(tag[0] in "ES" for tags in sentences for tag in tags):
        return "IOBES"
    return ("IOB1" if openings["I"] > openings["B"] else "IOB2") if openings else None


def _with_spans(document: list[Tagged]) -> dict:
    """The text of a document, and its mentions as characters of it."""
    starts = [0, *accumulate(len(word) + 1 for words, _ in document for word in words)]
    spans, first = [], 0  # first: word of the sentence
    for words, tags in document:
        for start, end, kind in chunks(tags):
            spans.append({"start": starts[first + start], "end": starts[first + end] - 1, "label": kind})
        first += len(words)
    text = "\n".join(" ".join(words) for words, _ in document)
    return {"text": text, "is_split": True, "spans": spans}


# --- Entity typing ----------------------------------------------------------------------------------------------------


def open_entity(record: Record, kept: tuple[str, ...] | None = None) -> Record:
    """{"text", "spans": [{"start", "end", "labels"}]}. kept: of the types as published, only these; None: all."""
    if "sent" in record.values:
        text = record.get("sent", str)
        start, end = record.span(text)
        left, mention, right, labels = text[:start], text[start:end], text[end:], record.texts("labels")
    elif "y_str" in record.values:
        left, right = (" ".join(record.texts(f"{side}_context_token")) for side in ("left", "right"))
        left, mention, right = f"{left} " if left else "", record.get("mention_span", str), f" {right}"
        labels = [name for name in record.texts("y_str") if kept is None or name in kept]
    else:
        return record
    space = mention[len(mention.rstrip()) :]  # a space at the end of a mention is not part of it
    left, mention, right = map(_brackets, (left, mention.rstrip(), (space + right).rstrip()))
    span = {"start": len(left), "end": len(left + mention), "labels": labels}
    return Record(record.where, {"text": left + mention + right, "spans": [span]})


def _brackets(text: str) -> str:
    """-LRB- and the like -> brackets."""
    return re.sub("-([LR])[RCS]B-", lambda found: "(" if found[1] == "L" else ")", text)


def unmark(line: str, where: str) -> Record:
    """`<e>Ada</e> met Bo` -> text "Ada met Bo" and its spans."""
    pieces = re.split("(</?e>)", line)
    marks = pieces[1::2]
    if not marks or marks != ["<e>", "</e>"] * (len(marks) // 2):
        found = " ".join(marks) or "missing"
        raise ValueError(f"{where}: the marks are {found}, expected <e> </e> around each mention")
    borders = list(accumulate(map(len, pieces[::2])))  # in the text without marks
    spans = [{"start": start, "end": end} for start, end in zip(borders[0:-1:2], borders[1::2])]
    return Record(where, {"text": "".join(pieces[::2]), "spans": spans})


# --- Relations --------------------------------------------------------------------------------------------------------


def relations(path: str | Path) -> list[Record]:
    """{"id", "text", "head": {"start", "end"}, "tail": ..., "label"} from TACRED, KBP37, RELX or our own form."""
    return [tacred(record) for record in files.read_records(path)] if files.is_json(path) else list(kbp37(path))


def tacred(record: Record) -> Record:
    if "token" not in record.values:
        return record
    tokens = record.texts("token")
    starts = [0, *accumulate(len(token) + 1 for token in tokens)]
    values = {"id": record.id(), "text": " ".join(tokens)}
    for ours, theirs in (("head", "subj"), ("tail", "obj")):
        first, last = record.get(f"{theirs}_start", int), record.get(f"{theirs}_end", int)
        if not 0 <= first <= last < len(tokens):
            held = f"fields '{theirs}_start' and '{theirs}_end' are {first} and {last}"
            raise ValueError(f"{record.where}: {held}, expected token indices with 0 <= start <= end < {len(tokens)}")
        values[ours] = {"start": starts[first], "end": starts[last + 1] - 1}
    return Record(record.where, values | {"label": record.get("relation", str)})


def kbp37(path: str | Path) -> Iterator[Record]:
    """KBP37 and RELX: blocks of two lines, an id with a sentence and a label; SemEval-2010's also have a Comment."""
    lines = enumerate(files.read_text(path).split("\n"), start=1)
    for is_blank, block in groupby(lines, key=lambda line: not line[1].strip()):
        if is_blank:
            continue
        (number, first), *rest = (line for line in block if not line[1].startswith("Comment:"))
        where = f"{path}, line {number}"
        name, tab, sentence = first.partition("\t")
        if not tab:
            raise ValueError(f"{where}: no tab, expected an id, a tab and a sentence")
        if len(rest) != 1:
            raise ValueError(f"{where}: {len(rest)} lines after the sentence, expected one, the label")
        # Quotes around the sentence are part of the format, the space before a full stop is of the tokenization.
        sentence = sentence.strip().strip('"').strip().replace(" .", ".")
        values = unmark_pair(sentence, where).values
        yield Record(where, {"id": name.strip(), **values, "label": rest[0][1].strip()})


def unmark_pair(sentence: str, where: str) -> Record:
    """`<e1> Ada </e1> met <e2> Bo </e2>.` -> text "Ada met Bo.", head and tail.

    A mention may be empty, as some of KBP37's are: there, numbers have been lost.
    """
    pieces = re.split(r"(</?e[12]>)", sentence.strip())
    marks = pieces[1::2]
    first, second = ["<e1>", "</e1>"], ["<e2>", "</e2>"]
    if marks not in (first + second, second + first):
        found = " ".join(marks) or "missing"
        raise ValueError(f"{where}: the marks are {found}, expected <e1> ... </e1> and <e2> ... </e2>")
    text, spans = "", {}
    for piece, mark in zip(pieces[::2], [*marks, ""]):
        if mark.startswith("</"):
            spans[mark] = {"start": len(text), "end": len(text) + len(piece.strip())}
            text += piece.strip()
        else:  # an empty mention, or a sentence that begins with one, would leave two spaces
            text += piece if text and not text.endswith(" ") else piece.lstrip()
    return Record(where, {"text": text, "head": spans["</e1>"], "tail": spans["</e2>"]})


# --- Cloze questions --------------------------------------------------------------------------------------------------


def cloze(path: str | Path) -> Iterator[Record]:
    """{"id", "text", "spans": [{"start", "end"}], "query", "answers", "gold"} from ReCoRD, SuperGLUE or our own form.

    gold: the spans that are right; without it, those whose text is an answer.
    """
    if Path(path).suffix == ".json":
        file = files.read_json(path)
        found = file.list("data") if isinstance(file, Record) else file
    else:
        found = files.read_json_lines(path)
    for record in found:
        yield from record_questions(record) if "qas" in record.values else [record]


def record_questions(record: Record) -> Iterator[Record]:
    """The questions of one of ReCoRD's passages. Its ends are inclusive; here they become exclusive."""
    passage = Record(f"{record.where}, passage", record.get("passage", dict))
    text = passage.get("text", str)
    spans = sorted_spans(passage.list("entities"), text, inclusive=True)
    for number, qa in enumerate(record.list("qas")):
        answers = [(item.span(text, inclusive=True), item.get("text", str)) for item in qa.list("answers")]
        name = qa.values.get("id", qa.values.get("idx", f"{record.values.get('id', record.where)}-{number}"))
        gold = [span for span, _ in answers if span in spans]
        yield Record(qa.where, {
            "id": str(name), "text": text, "spans": _as_objects(spans), "query": qa.get("query", str),
            "answers": [text for _, text in answers], "gold": _as_objects(gold),
        })  # fmt: skip


def sorted_spans(items: list[Record], text: str, inclusive: bool = False) -> tuple[tuple[int, int], ...]:
    """Half-open spans in text order; one that is listed twice is one. ValueError if two overlap."""
    spans = {item.span(text, inclusive=inclusive): item.where for item in items}
    ordered = sorted(spans)
    for first, second in zip(ordered, ordered[1:]):
        if second[0] < first[1]:
            raise ValueError(f"{spans[second]}: expected mentions that do not overlap, characters {second[0]} to "
                             f"{min(first[1], second[1])} are in two")  # fmt: skip
    return tuple(ordered)


def _as_objects(spans: Iterable[tuple[int, int]]) -> list[dict]:
    return [{"start": start, "end": end} for start, end in dict.fromkeys(spans)]


# --- Questions --------------------------------------------------------------------------------------------------------


def squad(path: str | Path) -> Iterator[Record]:
    """{"id", "question", "context", "title", "answers": [{"start", "end"}]} from SQuAD's form or our own.

    An accepted answer that is not in the context at its place is {"text"}; no answers: there is none.
    """
    path = Path(path)
    if path.suffix in (".jsonl", ".ndjson"):
        yield from files.read_json_lines(path)
        return
    file = files.read_json(path)
    if not isinstance(file, Record):
        raise ValueError(f"{path}: expected an object with a list 'data', found a list")
    for article in file.list("data"):
        title = unquote(article.get("title", str, "")).replace("_", " ")
        for paragraph in article.list("paragraphs"):
            context = paragraph.get("context", str)
            for qa in paragraph.list("qas"):
                values = {"id": qa.id() or qa.get("id", str), "question": qa.get("question", str), "context": context}
                yield Record(qa.where, values | {"title": title, "answers": _answers(qa, context)})


def _answers(qa: Record, context: str) -> list[dict]:
    found = [(item.get("text", str), item.get("answer_start", int)) for item in qa.list("answers", [])]
    if qa.get("is_impossible", bool, False):
        return []  # the list holds nothing then, or answers that only seem right
    if not found:
        raise ValueError(f'{qa.where}: field \'answers\' is empty, expected one, or "is_impossible": true')
    return [
        {"start": start, "end": start + len(text)} if text and start >= 0 and context.startswith(text, start)
        else {"text": text}
        for text, start in found
    ]  # fmt: skip


def squad_data_set(path: Path, has_unanswerable: bool) -> tuple[str, str, str]:
    """What the name of a file tells: metric, language of the contexts, language of the questions."""
    if found := re.search(r"xquad\.([a-z]{2})\.", path.name):
        return "squad", found[1], found[1]
    if found := re.search(r"context-([a-z]{2})-question-([a-z]{2})", path.name):
        return "mlqa", *found.groups()
    if "jsquad" in f"{path.parent.name}/{path.name}".lower():
        return "jsquad", "ja", "ja"
    return "squad2" if has_unanswerable else "squad", "en", "en"


def question(line: str, where: str) -> Record:
    """A question, a tab and its context, as --predict takes it."""
    asked, tab, context = line.partition("\t")
    if not tab:
        raise ValueError(f"{where}: expected a question, a tab and its context, or a JSON object")
    return Record(where, {"question": asked, "context": context})


# --- Texts ------------------------------------------------------------------------------------------------------------


def jglue(record: Record) -> Record:
    """{"text"}, {"text", "text_pair"} or {"question", "choices"}, and "label" if there is one."""
    values = record.values
    if "sentence1" in values or "sentence2" in values:
        texts = {"text": record.get("sentence1", str), "text_pair": record.get("sentence2", str)}
    elif "sentence" in values or not {"text", "text_pair", "question", "choices"} & values.keys():
        texts = {"text": record.get("sentence", str)}
    elif "question" in values and "choices" not in values:
        found = sum(name.startswith("choice") and name[6:].isdecimal() for name in values)
        choices = [record.get(f"choice{i}", str) for i in range(max(found, 1))]
        texts = {"question": record.get("question", str), "choices": choices}
    else:
        return record
    return Record(record.where, texts | {name: values[name] for name in ("label",) if name in values})


# --- Facts ------------------------------------------------------------------------------------------------------------

OBJECT_FILES = ("TREx_multilingual_objects", "GoogleRE_objects")


def mlama(path: str | Path, objects_folder: str = "") -> list[Record]:
    """{"language", "relation", "template", "candidates", "facts": [{"subject", "answers"}]} for each relation.

    path: a language's folder or its templates.jsonl; any other file is in our own form. objects_folder: where the
    folders of object files are, if they are neither one nor two above it.
    Relations without a file of facts are left out, those without a list of objects have the facts' own; both are said.
    """
    path = Path(path)
    if path.is_file() and path.name != "templates.jsonl":
        return list(files.read_json_lines(path))
    folder = path if path.is_dir() else path.parent
    objects = _objects(folder, objects_folder)
    found, missing, own = [], [], []
    for record in files.read_json_lines(folder / "templates.jsonl"):
        relation, answers = record.get("relation", str), {}
        if not (folder / f"{relation}.jsonl").is_file():
            missing.append(relation)
            continue
        for fact in files.read_json_lines(folder / f"{relation}.jsonl"):
            # differs from LUKE: all objects of a subject are right, not the last
            answers.setdefault(stripped(fact, "sub_label"), {})[stripped(fact, "obj_label")] = None
        if not objects.get(relation):
            own.append(relation)
        values = {"language": folder.resolve().name, "relation": relation, "template": record.get("template", str)}
        values["candidates"] = list(objects.get(relation) or dict.fromkeys(chain.from_iterable(answers.values())))
        values["facts"] = [{"subject": subject, "answers": list(right)} for subject, right in answers.items()]
        found.append(Record(record.where, values))
    for names, what in ((missing, "templates without a file of facts"), (own, "the facts' own objects as candidates")):
        if names:
            print(f"{folder}: {what}: {' '.join(names)}", flush=True)
    return found


def stripped(record: Record, field: str) -> str:
    """A name, without the white space around it. ValueError if nothing is left."""
    name = record.get(field, str).strip()
    if not name:
        raise ValueError(f"{record.where}: field {field!r} is empty, expected a name")
    return name


def _objects(folder: Path, elsewhere: str) -> dict[str, dict[str, None]]:
    """Relation -> its objects in the order of the files, each once (the files of GoogleRE repeat them)."""
    language = folder.resolve().name
    above = [Path(elsewhere)] if elsewhere else folder.resolve().parents[:2]
    paths = [folder / "objects.json", *(base / kind / f"{language}.json" for base in above for kind in OBJECT_FILES)]
    paths = [path for path in paths if path.is_file()]
    if elsewhere and not paths:
        raise ValueError(f"{elsewhere}: expected {' or '.join(f'{kind}/{language}.json' for kind in OBJECT_FILES)}")
    objects: dict[str, dict[str, None]] = {}
    for path in paths:
        whole = Record(str(path), files.read_object(path))
        for relation in whole.values:
            names = Record(f"{path}, {relation}", whole.get(relation, dict)).texts("objects")
            objects.setdefault(relation, {}).update(dict.fromkeys(one.strip() for one in names if one.strip()))
    return objects
