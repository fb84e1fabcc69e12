"""Wikitext of one page -> paragraphs of plain text, with the links as character spans.

In:  the wikitext as it stands in a dump, and the language of the wiki (namespace names and link trails differ).
Out: a list of `Paragraph`s. Headings, blank lines and list items each end one; `is_abstract` is true before the first
     heading. `paragraph.text[link.start:link.end]` is what a reader sees; links are sorted, apart and never empty.

How: the whole page is rewritten a handful of times, each time by `str.split`, `str.replace` or one regular expression,
so that Python itself meets only references, templates, links and lines. The order is from the outside in: what must
not be parsed (comments, <ref>, <math>, <nowiki>), templates, tables, tags, external links, links, lines. Two devices:
* what is removed leaves a `_GAP`, so that `[[bus]]<ref>..</ref>es` is not read as `[[bus]]es`; gaps go at the end;
* a link becomes `_LINK 17 _SURFACE buses _END`, 17 being its place in a list of titles. The surface is then cleaned
  like any other text; only when a paragraph is finished are the marks taken out and the positions counted.
Each step is linear in the page, also for a page that is nothing but open brackets. What is not closed stays text.

The reference (wikipedia2vec, dump_db.py) walks mwparserfromhell's tree and takes a section for a paragraph.
# differs from LUKE: headings go, link trails belong to the surface, and `Title#section` counts as `Title`: the
# reference looks it up with its section and never finds it.
Left out on purpose: templates that make text ({{convert|..}}), and prefixes of links (Arabic).
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from luke_mini import wiki_names
from luke_mini.wiki_dump import decode_entities, normalize_title


class Link(NamedTuple):
    title: str  # normalised, redirects not followed
    start: int
    end: int  # half-open span of characters of the paragraph's text


class Paragraph(NamedTuple):
    text: str
    links: list[Link]
    is_abstract: bool  # before the first heading


_GAP = "\0"  # where something was
_LINK, _SURFACE, _END = "\1", "\2", "\3"


# ---------------------------------------------------------------------------------------- taking things out of the page

_GONE = (  # tags whose contents are no text of the article
    "ref|references|gallery|timeline|math|chem|ce|code|syntaxhighlight|source|score|graph|hiero|imagemap|categorytree|"
    "templatedata|templatestyles|mapframe|maplink|inputbox|includeonly|style|script"
)
_OPAQUE = re.compile(rf"<(?:!--|({_GONE}|nowiki|pre)(?:\s[^<>]*)?/?>)", re.IGNORECASE)
_CLOSERS = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in f"{_GONE}|nowiki|pre".split("|")}
_CLOSERS["!--"] = re.compile("-->")
_MARKUP = re.compile(r"[][{}'<>=*#:;|!&_\n-]")


def _remove_opaque(text: str) -> str:
    """Takes out comments and the tags whose contents are not wikitext, from left to right: what opens first wins."""
    kept, position = [], 0
    unclosed = set()  # a closer that was missing once is missing for good; "<ref>" * n would take n searches to the end
    for match in _OPAQUE.finditer(text):
        if match.start() < position:
            continue
        name, contents, end = (match[1] or "!--").lower(), "", match.end()
        if not match[0].endswith("/>"):
            closer = None if name in unclosed else _CLOSERS[name].search(text, end)
            if closer is None:
                unclosed.add(name)
                continue  # the text stays; the tag goes with the other tags
            contents, end = text[end : closer.start()], closer.end()
        kept.append(text[position : match.start()])
        position = end
        if name == "!--":
            if text[match.start() - 1 : match.start()] == "\n" == text[end : end + 1]:
                position += 1  # a line that is all comment vanishes, or it would end a paragraph
            continue
        kept.append(_GAP)
        if name in ("nowiki", "pre"):
            # Entities of what could be taken for markup; they are decoded when all else is done.
            kept.append(_MARKUP.sub(lambda mark: f"&#{ord(mark[0])};", decode_entities(contents)))
    kept.append(text[position:])
    return "".join(kept)


def _remove_nested(text: str, opener: str, closer: str) -> str:
    """Takes out everything between an opener and its closer, however deep they nest; unpaired ones stay."""
    first, *chunks = text.split(opener)
    kept, open_at = [first], []
    for chunk in chunks:
        inside, *after = chunk.split(closer)
        open_at.append(len(kept))
        kept.append(opener + inside)
        for rest in after:
            if open_at:
                del kept[open_at.pop() :]
                kept.append(_GAP + rest)
            else:
                kept.append(closer + rest)
    return "".join(kept)


_PARAMETER = re.compile(r"\{\{\{[^{}]*\}\}\}")
_TABLE_END = re.compile(r"\n[ \t\0]+\|\}")
_HTML_TABLE = re.compile(r"<(/?)table(?:\s[^<>]*)?>", re.IGNORECASE)


def _remove_templates_and_tables(text: str) -> str:
    if "{{{" in text:
        text = _PARAMETER.sub(_GAP, text)
    text = _remove_nested(text, "{{", "}}")
    if "{|" in text:
        text = _remove_nested(_TABLE_END.sub("\n|}", text), "{|", "\n|}")
    return _remove_nested(_HTML_TABLE.sub(r"<\1table>", text), "<table>", "</table>")


# ------------------------------------------------------------------------------------------------- rewriting what stays

_BLOCK_TAG = re.compile(
    r"</?(?:p|div|center|blockquote|[uod]l|li|d[td]|h[1-6]|hr|poem|t[rdh]|caption)(?:\s[^<>]*)?/?>", re.IGNORECASE
)
_BREAK = re.compile(r"<br(?:\s[^<>]*)?/?>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<!--")
_MAGIC_WORD = re.compile(r"__[^\W\d_]\w*?__")
_VARIANT = re.compile(r"-\{([^{}]*)\}-")
_EXTERNAL = re.compile(  # [url label], the label with single or double brackets in it
    r"\[(?:(?:https?|ftps?|sftp|news|nntp|ircs?|gopher|telnet|git|svn|mms|worldwind|mailto|tel|urn):|//)"
    r"[^\s\[\]<>]*+[^\S\n]*([^\[\]\n]*+(?:(?:\[\[[^\[\]\n]*+\]\]|\[[^\[\]\n]*+\])[^\[\]\n]*+)*+)\]",
    re.IGNORECASE,
)


def _magic_word(match: re.Match) -> str:
    return _GAP if match[0] == match[0].upper() else match[0]  # __NOTOC__, __目次__; not __init__


def _variant(match: re.Match) -> str:
    """-{zh-hans:计算机; zh-hant:電腦}- -> 计算机: the Chinese Wikipedia lets its readers choose among the forms."""
    flags, bar, rules = match[1].rpartition("|")
    if bar and flags.strip() in ("H", "T", "-"):  # a rule for the rest of the page, or for its title
        return _GAP
    pairs = [rule.strip().partition(":") for rule in rules.split(";")]
    forms = {variety: form.strip() for variety, colon, form in pairs if colon and variety.startswith("zh")}
    return next((forms[variety] for variety in ("zh-hans", "zh-cn", "zh", *forms) if variety in forms), rules)


def _rewrite_markup(text: str, language: str) -> str:
    """Everything inside a line but internal links, bold and italics."""
    if language.startswith("zh") and "-{" in text:
        text = _VARIANT.sub(_variant, text)
    if "__" in text:
        text = _MAGIC_WORD.sub(_magic_word, text)
    text = _BREAK.sub(" ", _BLOCK_TAG.sub("\n\n", text))
    return _EXTERNAL.sub(r"\1", _TAG.sub(_GAP, text))


# ---------------------------------------------------------------------------------------------------------------- links

_NO_TARGET = re.compile(r"[\n\[\]{}<>]")
_BLANK = f" \t{_GAP}"


def _remove_pictures(text: str, language: str) -> str:
    """Takes out [[File:..]] and [[Category:..]], a caption with links in it and all."""
    for _ in range(5):  # a caption may hold pictures in its turn
        text, found = wiki_names.pictures(language).subn(_GAP, text)
        if not found:
            break
    return text


def _pipe_trick(target: str) -> str:
    """[[Help:Mercury (planet)|]] reads "Mercury", [[Boston, Massachusetts|]] "Boston"."""
    name = target.removeprefix(":")
    name = name.partition(":")[2].strip() or name
    for opening, closing in ("()", "（）"):
        if name.endswith(closing):
            return name.rpartition(opening)[0].strip() or name
    return name.partition(", ")[0]


def _link_text(inside: str, trail: str, is_alone: bool, titles: list[str], language: str) -> str | None:
    """What [[inside]]trail turns into: a mark, or mere text if it leads to no article. None if it is no link."""
    target, bar, surface = inside.partition("|")
    target = target.strip()
    if not target or _NO_TARGET.search(target) or "\n\n" in surface:  # nobody closes a bracket a paragraph later
        return None
    leads_to = wiki_names.leads_to(target, language) if ":" in target else wiki_names.ARTICLE
    if leads_to == wiki_names.PICTURE or leads_to == wiki_names.LANGUAGE and is_alone:
        return _GAP + trail  # a language that is alone on its line is meant for the sidebar
    if not bar:
        surface = target.removeprefix(":")
    elif not surface:
        surface = _pipe_trick(target)
    surface = surface.replace("\n", " ") + trail
    title = normalize_title(target.replace(_GAP, ""), language) if leads_to == wiki_names.ARTICLE else ""
    if not title:  # [[wikt:word]], [[#section]]
        return surface
    titles.append(title)
    return f"{_LINK}{len(titles) - 1}{_SURFACE}{surface}{_END}"


def _mark_links(text: str, titles: list[str], language: str) -> str:
    """Turns links into marks. Links do not nest: of [[a [[b]] c]] only [[b]] is one."""
    first, *chunks = text.split("[[")
    kept = [first]
    trailing = wiki_names.trail(language).match
    for chunk in chunks:
        inside, closed, rest = chunk.partition("]]")
        name = inside.lstrip("[")  # [[[a]]] is [[a]] in brackets
        letters = trailing(rest)
        trail = letters[0] if letters else ""
        is_alone = ":" in name and kept[-1].rstrip(_BLANK)[-1:] in ("", "\n") and rest.lstrip(_BLANK)[:1] in ("", "\n")
        link = _link_text(name, trail, is_alone, titles, language) if closed else None
        if link is None:
            kept.append("[[" + chunk)
        else:
            kept.append("[" * (len(inside) - len(name)) + link + rest[len(trail) :])
    return "".join(kept)


# ----------------------------------------------------------------------------------------------------------- paragraphs

_QUOTES = re.compile("'{2,}")
_LINE = re.compile(r"(=.+=\s*$)|[*#:;]+|-{4,}|\s*$")  # a heading, a list item, a rule or nothing
_MARK = re.compile(f"{_LINK}(\\d+){_SURFACE}([^{_END}]*){_END}")
_EMPTY = re.compile(f"{_LINK}\\d+{_SURFACE} *{_END}")
_SPACE_INSIDE = re.compile(f"({_LINK}\\d+{_SURFACE}) | ({_END})")


def _remove_quotes(line: str) -> str:
    """''italic'', '''bold''', '''''both'''''. Of four or of more than five the first ones are apostrophes.

    If bold and italics both end up unpaired, as in l'''Express'', one ''' was an apostrophe and '': the first after a
    single letter, else the first after a longer word, else the first (MediaWiki, Parser::doQuotes).
    """
    if "'''" not in line:
        return line.replace("''", "")
    runs = list(_QUOTES.finditer(line))
    bold = [run for run in runs if len(run[0]) != 2]
    italics = [run for run in runs if len(run[0]) not in (3, 4)]
    elision = None
    if len(bold) % 2 and len(italics) % 2:
        before = {run.start(): line[max(run.start() - 2, 0) : run.start()] for run in bold if len(run[0]) < 5}
        ranked = [(2 if pair[-1:] == " " else pair[:1] != " ", start) for start, pair in before.items()]
        elision = min(ranked, default=(0, None))[1]
    apostrophes = {4: 1} | {len(run[0]): len(run[0]) - 5 for run in runs if len(run[0]) > 5}
    return _QUOTES.sub(lambda run: "'" * (apostrophes.get(len(run[0]), 0) + (run.start() == elision)), line)


def _blocks(text: str) -> Iterator[tuple[str, bool]]:
    """(text of a paragraph, is it before the first heading), empty ones among them. Plain lines run on."""
    lines, is_abstract = [], True
    for line in text.split("\n"):
        if "''" in line:
            line = _remove_quotes(line)
        if _GAP in line:  # not earlier: ''{{x}}'' is not ''''
            line = line.replace(_GAP, "")
        special = _LINE.match(line) if line[:1] in "=*#:;- \t\r" else None  # an empty line too: "" is in any string
        if not special:
            lines.append(line)
            continue
        yield "\n".join(lines), is_abstract
        lines = []
        if special[1]:
            is_abstract = False
        else:
            yield line[special.end() :], is_abstract
    yield "\n".join(lines), is_abstract


def _paragraph(block: str, titles: list[str], is_abstract: bool) -> Paragraph | None:
    """Cleans a block and turns its marks into spans. None if nothing is left."""
    block = " ".join(decode_entities(block).split())
    if _LINK not in block:
        return Paragraph(block, [], is_abstract) if block else None
    pieces = _MARK.split(block)  # text, number, surface, text, number, surface, text
    if any(not surface or surface != surface.strip() for surface in pieces[2::3]):
        block = _SPACE_INSIDE.sub(lambda match: f" {match[1]}" if match[1] else f"{match[2]} ", _EMPTY.sub("", block))
        pieces = _MARK.split(" ".join(block.split()))
    links, position = [], 0
    for before, number, surface in zip(pieces[::3], pieces[1::3], pieces[2::3]):
        start = position + len(before)
        position = start + len(surface)
        links.append(Link(titles[int(number)], start, position))
    del pieces[1::3]
    text = "".join(pieces)
    return Paragraph(text, links, is_abstract) if text else None


# --------------------------------------------------------------------------------------------------------------- public


def parse(wikitext: str, language: str = "en") -> list[Paragraph]:
    """The paragraphs of a page; never raises, whatever the markup. `language` is the wiki's code, "en" or "simple"."""
    text = wikitext
    for mark in (_GAP, _LINK, _SURFACE, _END):  # no dump has them: XML forbids them
        text = text.replace(mark, "")
    text = _remove_templates_and_tables(_remove_opaque(text))
    titles = []
    text = _remove_pictures(_rewrite_markup(text, language), language)
    blocks = _blocks(_mark_links(text, titles, language))
    paragraphs = (_paragraph(block, titles, is_abstract) for block, is_abstract in blocks if block)
    return [paragraph for paragraph in paragraphs if paragraph]


def is_disambiguation(wikitext: str, language: str = "en") -> bool:
    """Does the page transclude one of its wiki's disambiguation templates?"""
    return wiki_names.disambiguation(language).search(wikitext) is not None
