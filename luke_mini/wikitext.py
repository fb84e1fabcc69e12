"""Titles of pages; wikitext of a page -> paragraphs of plain text, with links as character spans.

In:  wikitext from a dump, and the rules of its wiki: a `Site` made of the dump's header, or only a language.
Out: a list of `Paragraph`s, ended by headings, blank lines and list items; `is_abstract` is true before the first
     heading. `paragraph.text[link.start:link.end]` is the rendered link; links are sorted, disjoint and never empty.

How: the whole page is rewritten a handful of times, each time by `str.split`, `str.replace` or one regular expression,
so that Python loops only over references, templates, links and lines. The order: what must not be parsed (comments,
<ref>, <math>, <nowiki>), templates, tables, tags, external links, links, lines. Two tricks:
* removed markup leaves a `_GAP`, so that `[[bus]]<ref>..</ref>es` is not read as `[[bus]]es`; gaps are removed last;
* a link becomes `_MARK 17 _MARK buses _MARK`, where 17 is an index into a list of titles. The surface form is cleaned
  like any other text; `_paragraph` removes the marks last and turns them into character spans.
Each step takes linear time, even if the page is nothing but open brackets. What nobody closes is read as MediaWiki
reads it: a table or a comment ends with the page, a template, a link or a <ref> is text.

`wikis.txt` has what no header says: link trails, and further names of namespaces. Case, variants (-{ }-) and dotted i
follow the wiki and its language too.

LUKE's own code (wikipedia2vec, dump_db.py) walks mwparserfromhell's tree and treats a section as one paragraph.
# differs from LUKE: headings are dropped, link trails (the es of [[bus]]es) belong to the surface, and
# `Title#section` counts as `Title`: LUKE looks it up with its section and never finds it.
Left out on purpose: templates that produce text ({{convert|..}}; of dashes and the like there is a table), link
prefixes (Arabic), and, without a header, the local names of namespaces other than files and categories: a link into one
of them counts as a link to an article that does not exist, so it never becomes an entity.
"""

import html
import html.entities
import re
from collections.abc import Callable, Iterator
from functools import cache, lru_cache, partial
from itertools import accumulate, count, zip_longest
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote


class Site(NamedTuple):
    """The rules of a wiki, from the header of its dump."""

    language: str = "en"  # "en", "simple", "zh-yue", ...
    namespaces: tuple[tuple[int, str], ...] = ()  # key and name, as "-2 Media", "6 File", "14 Category"
    case_sensitive: bool = False  # "gerku" and "Gerku" are two pages


class Link(NamedTuple):
    title: str  # normalized, redirects not followed
    start: int
    end: int  # half-open span of characters of the paragraph's text


class Paragraph(NamedTuple):
    text: str
    links: list[Link]
    is_abstract: bool  # before the first heading


# Two characters that are in no dump, as XML forbids them. Not \0: Python is slow to find it.
_MARK = "\1"  # three around a link, see above
_GAP = "\2"  # where markup was removed


# --------------------------------------------------------------------------------------------------------------- titles

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]*);")
_INVISIBLE = re.compile("[\u200e\u200f\u202a-\u202e]")  # direction marks, pasted with a title
_NO_TITLE = re.compile(r"[\x00-\x1f\x7f<>\[\]{}|]")  # characters that no title has


def decode_entities(text: str) -> str:
    """`&amp;` `&#65;` `&#x41;` -> the character; only with the semicolon (html.unescape also decodes "&copy=1")."""
    return _ENTITY.sub(_decode_entity, text) if "&" in text else text


def _decode_entity(match: re.Match) -> str:
    entity = match[0]
    return html.unescape(entity) if entity[1] == "#" else html.entities.html5.get(entity[1:], entity)


def _decode(target: str) -> str:
    """Without the two ways to write a character of a title: `&#58;` and `%3A`."""
    target = decode_entities(target)
    if "%" in target:
        try:
            decoded = unquote(target, errors="strict")
            target = target if _NO_TITLE.search(decoded) else decoded
        except UnicodeDecodeError:
            pass  # "50%ab" is a title
    return target


_DOTTED_I = frozenset("az kaa tr".split())  # languages in which İ is the capital of i


def normalize_title(title: str, language: str = "en", case_sensitive: bool = False) -> str:
    """A link's target as a page title: "_foo_bar#part" -> "Foo bar"; "" if it is only a section."""
    title = _decode(title).partition("#")[0].replace("_", " ")
    if not title.isascii():
        title = _INVISIBLE.sub("", title)
    title = " ".join(title.split())
    if title.startswith(":"):  # [[:Category:X]] links to a category instead of adding the page to it
        title = title[1:].lstrip()
    if not title or case_sensitive:
        return title
    # Not str.upper: it changes Georgian letters, MediaWiki does not. A letter whose capital is two letters stays.
    first = "İ" if language in _DOTTED_I and title[0] == "i" else title[0].title()
    return first + title[1:] if len(first) == 1 else title


# ---------------------------------------------------------------------------------------- taking things out of the page

_GONE = (  # tags whose contents are not text of the article
    "ref|references|gallery|timeline|math|chem|ce|code|syntaxhighlight|source|score|graph|hiero|imagemap|categorytree|"
    "templatedata|templatestyles|mapframe|maplink|inputbox|includeonly|style|script"
)
# Most of what is removed: a <ref> with its contents, if they have no "<". Otherwise a comment or any tag.
_OPAQUE = re.compile(r"<(?:ref(?:\s[^<>]*)?/?>(?:(?<=/>)|[^<]*+</ref\s*>)|(!--|[a-zA-Z]+(?=[\s/>]))(?:(?<=--)|[^<>]*>))")
_CLOSERS = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in f"{_GONE}|nowiki|pre".split("|")}
_CLOSERS["!--"] = re.compile("-->")
_TO_THE_END = ("!--", "includeonly")  # what hides the rest of the page if nobody closes it
_MARKUP = re.compile(r"[][{}'<>=*#:;|!&_\n-]")


def _remove_opaque(text: str) -> str:
    """Removes comments and the tags whose contents are not wikitext, from left to right: what opens first wins."""
    kept, position = [], 0
    unclosed = set()  # names without a closer from here on: do not search to the end again for each of many "<ref>"
    for match in _OPAQUE.finditer(text):
        start, end = match.span()
        if start < position:
            continue
        if match[1] is None:
            kept += text[position:start], _GAP
            position = end
            continue
        name, contents = match[1].lower(), ""
        if name not in _CLOSERS:
            continue
        if not match[0].endswith("/>"):
            closer = None if name in unclosed else _CLOSERS[name].search(text, end)
            if closer is None and name not in _TO_THE_END:
                unclosed.add(name)
                continue  # the text stays; the tag is removed with the other tags
            close, after = closer.span() if closer else (len(text), len(text))
            contents, end = text[end:close], after
        kept.append(text[position:start])
        position = end
        if name == "!--":
            if text[start - 1 : start] == "\n" == text[end : end + 1]:
                position += 1  # remove a comment's whole line: an empty line would end the paragraph
            continue
        kept.append(_GAP)
        if name in ("nowiki", "pre"):
            # Markup characters become entities, which are decoded last.
            kept.append(_MARKUP.sub(lambda mark: f"&#{ord(mark[0])};", decode_entities(contents)))
    kept.append(text[position:])
    return "".join(kept)


def _remove_nested(text: str, opener: str, closer: str) -> str:
    """Removes everything between an opener and its closer, at any depth; unpaired ones stay."""
    first, *chunks = text.split(opener)
    if not chunks:
        return text
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


def _remove_tables(text: str) -> str:
    """Removes tables at any depth; what nobody closes ends with the page."""
    kept, position, depth = [], 0, 0
    for edge in _TABLE_EDGE.finditer(text):
        if edge[1]:
            kept += [] if depth else [text[position : edge.start()], f"\n{_GAP}"]
            depth += 1
        elif depth:
            depth -= 1
            position = edge.end()
    return "".join(kept if depth else [*kept, text[position:]])


# Templates that are a character; the others go, and what stands around them would be one word.
_CHARACTERS = {
    "mdash|em dash|emdash|—": "—", "ndash|en dash|endash|–|--": "–", "nbsp|space|spaces": " ", "!": "|", "=": "=",
    "dash|snd|sndash|spnd|spndash|spaced ndash|spaced en dash": " – ", "·|middot|dot|•|bull|bullet": " · ",
    "smd|smdash|spmd|spaced mdash|spaced em dash|тире": " — ",
}  # fmt: skip
_CHARACTER = {name: character for names, character in _CHARACTERS.items() for name in names.split("|")}
# A template without another one in it, its name if that is short and all that it has. {{{ is the edge of a parameter.
_FLAT_TEMPLATE = re.compile(r"\{\{(?<!\{\{\{)(?:([^{}|]{1,20})|[^{}]*+)\}\}(?!\})")
_PARAMETER = re.compile(r"\{\{\{[^{}]*\}\}\}")
_TABLE_EDGE = re.compile(rf"\n[ \t{_GAP}:]*(?:(\{{\|)|\|\}})")


def _remove_templates_and_tables(text: str) -> str:
    if "{{{" in text:
        text = _PARAMETER.sub(_GAP, text)
    if "{{" in text:
        pieces = _FLAT_TEMPLATE.split(text)  # text, name, text, ...
        pieces[1::2] = [_CHARACTER.get(name.strip().lower(), _GAP) if name else _GAP for name in pieces[1::2]]
        text = _remove_nested("".join(pieces), "{{", "}}")
    if "{" in text and "{|" in text:  # one character is quicker to find than two
        text = _remove_tables(f"\n{text}")
    return text


# ------------------------------------------------------------------------------------------------- rewriting what stays

_BLOCKS = "p|div|center|blockquote|ol|ul|dl|li|dd|dt|h1|h2|h3|h4|h5|h6|hr|poem|tr|td|th|caption"
_TAG_TEXT = {form.format(name): "\n\n" for name in _BLOCKS.split("|") for form in ("{}", "/{}", "{}/", "/{}/")}
_TAG_TEXT |= {"br": " ", "br/": " "}  # what a tag becomes, if not a gap
_TAG = re.compile(r"<(?=/?[a-zA-Z])(?:(/?\w+/?)(?=[\s>]))?[^<>]*>")
_MAGIC_WORD = re.compile(r"__[^\W\d_]\w*?__")
_ANY_CASE = frozenset("notoc forcetoc toc nogallery noeditsection notitleconvert notc nocontentconvert nocc".split())
_VARIANT = re.compile(r"-\{([^{}]*)\}-")
_EXTERNAL = re.compile(  # [url label], the label with single or double brackets in it
    rf"\[(?=[a-zA-Z/])(?:(?:https?|ftps?|sftp|news|nntp|ircs?|gopher|telnet|git|svn|mms|worldwind|mailto|tel|urn):|//)"
    rf"[^\s\[\]<>\"'{_MARK}]*+(?:'(?!')[^\s\[\]<>\"'{_MARK}]*+)*+[^\S\n]*+([^\[\]\n]*+(?:(?:\[\[[^\[\]\n]*+\]\]|\[[^\[\]\n]*+\])[^\[\]\n]*+)*+)\]",
    re.IGNORECASE,
)


# Languages whose wikis have variants, and the codes of those that we read, the best first.
_VARIANTS = {
    "ban": "ban", "crh": "crh-latn", "gan": "gan-hans", "iu": "ike-cans", "kk": "kk-cyrl", "ku": "ku-latn",
    "mni": "mni", "sh": "sh-latn", "shi": "shi-latn", "sr": "sr-ec sr-cyrl", "tg": "tg-cyrl tg", "tly": "tly",
    "uz": "uz-latn", "wuu": "wuu-hans", "zgh": "zgh", "zh": "zh-hans zh-cn zh",
}  # fmt: skip
_CODE = re.compile(r"[a-z]{2,3}(?:-[a-z]+)*")


def _variant(match: re.Match, language: str) -> str:
    """-{zh-hans:计算机; zh-hant:電腦}- -> 计算机: readers of the Chinese Wikipedia choose a variant."""
    flags, bar, rules = match[1].rpartition("|")
    if bar and flags.strip() in ("H", "T", "-"):  # a rule for the rest of the page or for its title
        return _GAP
    pairs = [rule.strip().partition(":") for rule in rules.split(";")]
    forms = {code: form.strip() for code, colon, form in pairs if colon and _CODE.fullmatch(code)}
    return next((forms[code] for code in (*_VARIANTS[language].split(), *forms) if code in forms), rules)


def _is_magic(word: str) -> bool:
    """__NOTOC__, __notoc__, __目次__; not __init__"""
    return word == word.upper() or not word.isascii() or word.strip("_").lower() in _ANY_CASE


def _rewrite_words(text: str, language: str) -> str:
    """Chooses variants and removes magic words."""
    main = language.partition("-")[0] if language.startswith("zh") else language
    if main in _VARIANTS and "-{" in text:
        for _ in range(3):  # rules may be nested
            text = _VARIANT.sub(lambda match: _variant(match, main), text)
    if "__" in text:
        text = _MAGIC_WORD.sub(lambda match: _GAP if _is_magic(match[0]) else match[0], text)
    return text


def _rewrite_tags(text: str) -> str:
    """Removes tags, and HTML's tables with their contents."""
    kept, position, depth = [], 0, 0
    for tag in _TAG.finditer(text):
        name = (tag[1] or "").lower()
        if not depth:
            kept += text[position : tag.start()], _TAG_TEXT.get(name, _GAP)
            position = tag.end()
        depth += (name == "table") - (name == "/table" and depth > 0)
        if name == "/table":
            position = tag.end()
    return "".join(kept if depth else [*kept, text[position:]])


# ----------------------------------------------------------------------------------------------------- where links lead

# Kinds of link targets. HIDDEN: files, media and categories, which are not part of the text.
ARTICLE, HIDDEN, LANGUAGE, OTHER = "article", "hidden", "language", "other"

_FILE_NAMES = "file|image|media|category"  # in every wiki
_OTHER_NAMESPACES = (
    "talk|user|user talk|wikipedia|wikipedia talk|project|project talk|wp|wt|file talk|image talk|mediawiki|mediawiki "
    "talk|template|template talk|help|help talk|category talk|portal|portal talk|draft|draft talk|module|module talk|"
    "special|timedtext|book|topic"
)

# Prefixes that lead to another wiki: Wikipedia's languages, and the sister projects.
_LANGUAGES = (
    "aa ab ace ady af als alt am ami an ang anp ar arc ary arz as ast atj av avk awa ay az azb ba ban bar bat-smg bbc "
    "bcl be be-tarask be-x-old bew bg bh bi bjn blk bm bn bo bpy br bs btm bug bxr ca cbk-zam cdo ce ceb ch cho chr "
    "chy ckb co cr crh cs csb cu cv cy da dag de dga din diq dsb dtp dty dv dz ee egl el eml en eo es et eu ext fa "
    "fat ff fi fiu-vro fj fo fon fr frp frr fur fy ga gag gan gcr gd gl glk gn gom gor got gpe gsw gu guc gur guw gv "
    "ha hak haw he hi hif ho hr hsb ht hu hy hyw hz ia id ie ig igl ii ik ilo inh io is it iu ja jam jbo jv ka kaa "
    "kab kbd kbp kcg kg ki kj kk kl km kn ko koi kr krc ks ksh ku kus kv kw ky la lad lb lbe lez lfn lg li lij lld "
    "lmo ln lo lrc lt ltg lv lzh mad mai map-bms mdf mg mh mhr mi min mk ml mn mni mnw mo mr mrj ms mt mus mwl my myv "
    "mzn na nah nan nap nb nds nds-nl ne new ng nia nl nn no nov nqo nrm nso nv ny oc olo om or os pa pag pam pap pcd "
    "pcm pdc pfl pi pih pl pms pnb pnt ps pt pwn qu rm rmy rn ro roa-rup roa-tara ru rue rup rw sa sah sat sc scn sco "
    "sd se sg sgs sh shi shn shy si simple sk skr sl sm smn sn so sq sr srn ss st stq su sv sw szl szy ta tay tcy te "
    "tet tg th ti tk tl tly tn to tpi tr trv ts tt tum tw ty tyv udm ug uk ur uz ve vec vep vi vls vo vro wa war wo "
    "wuu xal xh xmf yi yo yue za zea zgh zh zh-classical zh-cn zh-min-nan zh-tw zh-yue zu"
)
_PROJECTS = (
    "wikt wiktionary b wikibooks n wikinews q wikiquote s wikisource v wikiversity voy wikivoyage species wikispecies "
    "d wikidata c commons m meta metawiki metawikipedia mw mediawikiwiki foundation wikimedia w incubator outreach "
    "phab phabricator bugzilla gerrit tools toolforge toollabs wmf f wikifunctions testwiki doi pmid arxiv bibcode "
    "hdl issn jstor oeis iarchive gutenberg google imdbname imdbtitle imdbcompany irc rfc openlibrary memoryalpha "
    "wikia wookieepedia uncyclopedia wikihow citizendium rev"
)


_HIDDEN_NAMESPACES = (-2, 6, 14)  # media, files, categories


@cache
def _tables() -> dict[str, dict[str, list[str]]]:
    """`wikis.txt`: section -> language -> its entries."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in Path(__file__).with_name("wikis.txt").read_text(encoding="utf-8").split("\n"):
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            languages, _, entry = line.partition(" = ")
            for language in languages.split():
                section.setdefault(language, []).append(entry)
    return sections


class _Wiki(NamedTuple):
    site: Site
    prefixes: dict[str, str]  # prefix of a link target -> kind of target
    hidden_link: re.Pattern  # the beginning of [[File:..]] or [[Category:..]]
    trail: re.Pattern
    plain_link: re.Pattern  # most of the links to articles: target, surface, trail
    title: Callable[[str], str]  # `normalize_title` by these rules, cached: half of the links on a page repeat a title


def _prefix(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


@lru_cache
def _wiki(site: Site | str) -> _Wiki:
    site = Site(site) if isinstance(site, str) else site
    tables = _tables()
    hidden = "|".join([_FILE_NAMES, *tables["names"].get(site.language, [])]).split("|")
    hidden += [_prefix(name) for key, name in site.namespaces if key in _HIDDEN_NAMESPACES]
    prefixes = dict.fromkeys(_PROJECTS.split() + _OTHER_NAMESPACES.split("|"), OTHER)
    prefixes |= dict.fromkeys(_LANGUAGES.split(), LANGUAGE) | {_prefix(name): OTHER for _, name in site.namespaces}
    prefixes |= dict.fromkeys(hidden, HIDDEN)
    names = "|".join(map(re.escape, hidden)).replace(r"\ ", "[ _]+")
    colon = r"(?::|%3a|&#0*58;|&#x0*3a;|&colon;)"
    hidden_link = re.compile(rf"\[\[(?=[^][|:%&]*+[:%&])[\s_]*(?:{names})[\s_]*{colon}", re.IGNORECASE)
    letters = tables["trails"].get(site.language, ["a-z"])[0]
    trail = "(?!)" if letters == '""' else f"[{letters}]+" if "'" not in letters else f"(?:[{letters}](?<!')|'(?!'))+"
    no_target = rf"][{{}}<>|\n:%&{_GAP}"
    target = rf"[^{no_target}\s/][^{no_target}]*+"
    plain_link = re.compile(rf"\[\[({target})(?:\|([^][<>\n]++))?\]\]((?:{trail})?)")
    title = lru_cache(1 << 16)(partial(normalize_title, language=site.language, case_sensitive=site.case_sensitive))
    return _Wiki(site, prefixes, hidden_link, re.compile(trail), plain_link, title)


def leads_to(target: str, site: Site | str) -> str:
    """What the target of a link is, judged by its prefix."""
    return _kind(target, _wiki(site).prefixes)


def _kind(target: str, prefixes: dict[str, str]) -> str:
    if "%" in target or "&" in target:
        target = _decode(target)
    prefix, colon, _ = target.lstrip(": ").partition(":")
    kind = prefixes.get(_prefix(prefix), ARTICLE) if colon else ARTICLE
    # [[:File:X]] links to the page of the file instead of showing it.
    return OTHER if target[:1] == ":" and kind != ARTICLE else kind


# ---------------------------------------------------------------------------------------------------------------- links

_NO_TARGET = re.compile(r"[\n\[\]{}<>]")
_BLANK = f" \t{_GAP}"


_BRACKET = re.compile(r"\[\[(?!\[)|\]\]|\[")


def _hidden_spans(text: str, position: int, hidden: set[int]) -> tuple[list[tuple[int, int]], int]:
    """Spans of the links that start at one of the places `hidden`, from the first one at `position` until all that
    opens has closed; and where that is. Links and single brackets may be inside."""
    spans, open_links = [], []  # of what is open: where it starts, whether a single bracket is inside
    while bracket := _BRACKET.search(text, position):
        start, position = bracket.span()
        if bracket[0] == "[[":
            open_links.append([start, False])
        elif bracket[0] == "[":
            open_links[-1][1] = True
        else:
            start, has_bracket = open_links.pop()
            position += has_bracket and text.startswith("]", position)  # the third of [[b|[c]]]
            if start in hidden:
                while spans and spans[-1][0] > start:
                    spans.pop()
                spans.append((start, position))
        if not open_links:
            return spans, position
    return spans, len(text)


def _remove_hidden_links(text: str, wiki: _Wiki) -> str:
    """Takes out [[File:..]] with its caption, and [[Category:..]]. What nobody closes stays."""
    starts = [match.start() for match in wiki.hidden_link.finditer(text)]
    kept, hidden, seen, position = [], set(starts), 0, 0
    for start in starts:
        if start >= seen:
            spans, seen = _hidden_spans(text, start, hidden)
            for begin, end in spans:
                kept += [text[position:begin], _GAP]
                position = end
    return "".join([*kept, text[position:]])


def _pipe_trick(target: str) -> str:
    """[[Help:Mercury (planet)|]] is rendered "Mercury", [[Boston, Massachusetts|]] "Boston"."""
    name = target.removeprefix(":")
    name = name.partition(":")[2].strip() or name
    for opening, closing in ("()", "（）"):
        if name.endswith(closing):
            return name.rpartition(opening)[0].strip() or name
    return name.partition(", ")[0]


def _is_alone(before: str, after: str) -> bool:
    """Whether what stands between the two has its line for itself."""
    return before.rstrip(_BLANK)[-1:] in ("", "\n") and after.lstrip(_BLANK)[:1] in ("", "\n", _MARK)


def _link_text(before: str, inside: str, after: str, trail: str, titles: list[str], wiki: _Wiki) -> str | None:
    """before[[inside]]after -> a marked link, or plain text if it leads to no article. None if it is not a link."""
    target, bar, surface = inside.partition("|")
    target = target.strip()
    if not target or _NO_TARGET.search(target) or "\n\n" in surface or _MARK in inside:
        return None  # a link spans no paragraphs, and has no link in it
    encoded = "&" in target or "%" in target  # perhaps the colon
    kind = _kind(target, wiki.prefixes) if ":" in target or encoded else ARTICLE
    if kind == HIDDEN or kind == LANGUAGE and _is_alone(before, after):
        return _GAP + trail  # a language link alone on its line belongs to the sidebar
    if not bar:
        surface = target.removeprefix(":")
    elif not surface:
        surface = _pipe_trick(target)
    surface = surface.replace("\n", " ") + trail
    title = wiki.title(target.replace(_GAP, "")) if kind == ARTICLE else ""
    if not title or encoded and _NO_TITLE.search(title):  # [[wikt:word]], [[#section]], [[&#91;]]
        return surface
    titles.append(title)
    return f"{_MARK}{len(titles) - 1}{_MARK}{surface}{_MARK}"


def _mark_plain_links(text: str, titles: list[str], wiki: _Wiki) -> str:
    """Replaces by marks the links that need no second look, which are most; what `_link_text` does, but faster."""
    pieces = wiki.plain_link.split(text)  # text, target, surface, trail, text, ...
    targets, surfaces, trails = pieces[1::4], pieces[2::4], pieces[3::4]
    titles += map(wiki.title, targets)
    del pieces[3::4], pieces[2::3]
    pieces[1::2] = [
        f"{_MARK}{number}{_MARK}{surface or target.rstrip()}{trail}{_MARK}"
        if titles[number] else f"{surface or target.rstrip()}{trail}"  # [[#section]]
        for number, target, surface, trail in zip(count(), targets, surfaces, trails)
    ]  # fmt: skip
    return "".join(pieces)


def _mark_links(text: str, titles: list[str], wiki: _Wiki) -> str:
    """Replaces links by marks. Links do not nest: in [[a [[b]] c]] only [[b]] is one."""
    first, *chunks = text.split("[[")
    kept = [first]
    trailing = wiki.trail.match
    for chunk in chunks:
        inside, closed, rest = chunk.partition("]]")
        name = inside.lstrip("[")  # [[[a]]] is [[a]] in brackets
        if rest[:1] == "]" and "[" in name:  # [[b|[c]]]
            inside, name, rest = f"{inside}]", f"{name}]", rest[1:]
        letters = trailing(rest)
        trail = letters[0] if letters else ""
        link = _link_text(kept[-1], name, rest, trail, titles, wiki) if closed else None
        if link is None:
            kept.append("[[" + chunk)
        else:
            kept.append("[" * (len(inside) - len(name)) + link + rest[len(trail) :])
    return "".join(kept)


# ----------------------------------------------------------------------------------------------------------- paragraphs

_QUOTES = re.compile("'{2,}")
_QUOTED = re.compile("''(?:.*'')?'*")  # of a line, all from the first to the last quotes
_LINE = re.compile(  # a heading, a list item, a rule or an empty line
    r"\n(?:(=.+=[^\S\n]*)|(?:[*#:;]++|-{4,}+)(.*)|(?:[ \t\r][^\S\n]*+)?)(?=\n)"
)
_LINKED = re.compile(f"{_MARK}(\\d+){_MARK}([^{_MARK}]*){_MARK}")
_GAP_AT_END = re.compile(rf"{_GAP}[\s,;]*+[)）]")  # quick to find, before the slow one
_EMPTY_BRACKETS = re.compile(rf" ?[(（][\s,;]*+{_GAP}[\s,;{_GAP}]*+[)）]")


def _remove_quotes(quoted: re.Match) -> str:
    """''italic'', '''bold''', '''''both'''''. In a run of four or more than five, the first ones are apostrophes.

    If bold and italics are both unpaired, as in l'''Express'', one ''' is an apostrophe and '': the first after a
    single letter, otherwise the first after a longer word, otherwise the first (MediaWiki, Parser::doQuotes).
    """
    line, start = quoted[0], quoted.start()
    if "'''" not in line:
        return line.replace("''", "")
    before = quoted.string[max(start - 2, 0) : start].rpartition("\n")[2]
    line = before + line
    runs = list(_QUOTES.finditer(line))
    bold = [run for run in runs if len(run[0]) != 2]
    italics = [run for run in runs if len(run[0]) not in (3, 4)]
    elision = None
    if len(bold) % 2 and len(italics) % 2:
        pairs = {run.start(): line[max(run.start() - 2, 0) : run.start()] for run in bold if len(run[0]) < 5}
        ranked = [(2 if pair[-1:] == " " else pair[:1] != " ", start) for start, pair in pairs.items()]
        elision = min(ranked, default=(0, None))[1]
    apostrophes = {4: 1} | {len(run[0]): len(run[0]) - 5 for run in runs if len(run[0]) > 5}
    line = _QUOTES.sub(lambda run: "'" * (apostrophes.get(len(run[0]), 0) + (run.start() == elision)), line)
    return line[len(before) :]


def _remove_gaps(text: str) -> str:
    """Not earlier: ''{{x}}'' is not ''''."""
    kept, position = [], 0
    for match in _GAP_AT_END.finditer(text):  # the brackets of ({{x}}) go with it
        start = max(text.rfind("\n", position, match.start()), position)
        kept += text[position:start], _EMPTY_BRACKETS.sub("", text[start : match.end()])
        position = match.end()
    return "".join([*kept, text[position:]]).replace(_GAP, "")


def _blocks(text: str) -> Iterator[tuple[str, bool]]:
    """(text of a paragraph, whether it is before the first heading), empty ones included. Plain lines are joined."""
    pieces = _LINE.split(f"\n{_remove_gaps(_QUOTED.sub(_remove_quotes, text))}\n")  # text, heading, list item, text, ...
    is_abstract = True
    for block, heading, item in zip_longest(pieces[::3], pieces[1::3], pieces[2::3]):
        yield block, is_abstract
        if heading:
            is_abstract = False
        elif item:
            yield item, is_abstract


def _trimmed(match: re.Match) -> str:
    """A marked link with the spaces around its surface outside of it; "" without a surface."""
    number, surface = match.groups()
    if not surface.strip():
        return ""
    return f"{' ' * surface.startswith(' ')}{_MARK}{number}{_MARK}{surface.strip()}{_MARK}{' ' * surface.endswith(' ')}"


_link, _made = partial(tuple.__new__, Link), partial(tuple.__new__, Paragraph)  # Link._make, without Python


def _unmarked(block: str) -> tuple[list[str], list[str], str]:
    """(numbers of the links; text, surface, text, surface, text; all of these as one)"""
    pieces = block.split(_MARK)  # text, number, surface, text, number, surface, text
    numbers = pieces[1::3]
    del pieces[1::3]
    return numbers, pieces, "".join(pieces)


def _paragraph(block: str, titles: list[str], is_abstract: bool) -> Paragraph:
    """Cleans a block and replaces its marks by spans."""
    block = block.strip()
    if "\n" in block:
        block = block.replace("\n", " ")
    if "&" in block:
        block = decode_entities(block).strip()
    numbers, pieces, text = _unmarked(block) if _MARK in block else ([], [block], block)
    if "  " in text or not text.isprintable():  # the only printable white space is " "
        block = " ".join(block.split())
        numbers, pieces, text = _unmarked(block)
    if not numbers:
        return _made((text, [], is_abstract))
    surfaces = pieces[1::2]
    if surfaces != list(filter(None, map(str.strip, surfaces))):
        block = _LINKED.sub(_trimmed, block)
        numbers, pieces, text = _unmarked(" ".join(block.split()))
    ends = list(accumulate(map(len, pieces)))
    links = zip(map(titles.__getitem__, map(int, numbers)), ends[::2], ends[1::2])
    return _made((text, list(map(_link, links)), is_abstract))


def parse(wikitext: str, site: Site | str = "en") -> list[Paragraph]:
    """The paragraphs of a page; never raises, whatever the markup. site: the wiki's rules, or only its language."""
    wiki, text = _wiki(site), wikitext
    if _GAP in text or _MARK in text:  # forbidden in XML, so not in a dump
        text = text.replace(_GAP, "").replace(_MARK, "")
    text = _remove_templates_and_tables(_remove_opaque(text))
    titles = []
    text = _mark_plain_links(_rewrite_words(text, wiki.site.language), titles, wiki)
    text = _EXTERNAL.sub(rf"\1{_GAP}", _rewrite_tags(text))
    blocks = _blocks(_mark_links(_remove_hidden_links(text, wiki), titles, wiki))
    paragraphs = (_paragraph(block, titles, is_abstract) for block, is_abstract in blocks if block)
    return [paragraph for paragraph in paragraphs if paragraph.text]
