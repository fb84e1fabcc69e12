"""Titles of pages; wikitext of a page -> paragraphs of plain text, with links as character spans.

In:  wikitext from a dump, and the language of the wiki (namespace names and link trails differ).
Out: a list of `Paragraph`s, ended by headings, blank lines and list items; `is_abstract` is true before the first
     heading. `paragraph.text[link.start:link.end]` is the rendered link; links are sorted, disjoint and never empty.

How: the whole page is rewritten a handful of times, each time by `str.split`, `str.replace` or one regular expression,
so that Python loops only over references, templates, links and lines. The order: what must not be parsed (comments,
<ref>, <math>, <nowiki>), templates, tables, tags, external links, links, lines. Two tricks:
* removed markup leaves a `_GAP`, so that `[[bus]]<ref>..</ref>es` is not read as `[[bus]]es`; gaps are removed last;
* a link becomes `_LINK 17 _SURFACE buses _END`, where 17 is an index into a list of titles. The surface form is cleaned
  like any other text; `_paragraph` removes the marks last and turns them into character spans.
Each step takes linear time, even if the page is nothing but open brackets. Unclosed markup stays as text.

LUKE's own code (wikipedia2vec, dump_db.py) walks mwparserfromhell's tree and treats a section as one paragraph.
# differs from LUKE: headings are dropped, link trails (the es of [[bus]]es) belong to the surface, and
# `Title#section` counts as `Title`: LUKE looks it up with its section and never finds it.
Left out on purpose: templates that produce text ({{convert|..}}), link prefixes (Arabic), and the local names of
namespaces other than files and categories: a link into one of them counts as a link to an article that does not exist,
so it never becomes an entity.
"""

import html
import html.entities
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote


class Link(NamedTuple):
    title: str  # normalized, redirects not followed
    start: int
    end: int  # half-open span of characters of the paragraph's text


class Paragraph(NamedTuple):
    text: str
    links: list[Link]
    is_abstract: bool  # before the first heading


_GAP = "\0"  # where markup was removed
_LINK, _SURFACE, _END = "\1", "\2", "\3"


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


@lru_cache(1 << 16)  # half of the links on a page repeat a title
def normalize_title(title: str, language: str = "en") -> str:
    """A link's target as a page title: "_foo_bar#part" -> "Foo bar"; "" if it is only a section."""
    title = decode_entities(title)
    if "%" in title:
        try:
            decoded = unquote(title, errors="strict")
            title = title if _NO_TITLE.search(decoded) else decoded
        except UnicodeDecodeError:
            pass  # "50%ab" is a title
    title = title.partition("#")[0].replace("_", " ")
    if not title.isascii():
        title = _INVISIBLE.sub("", title)
    title = " ".join(title.split())
    if title.startswith(":"):  # [[:Category:X]] links to a category instead of adding the page to it
        title = title[1:].lstrip()
    if not title:
        return ""
    # Not str.upper: it changes Georgian letters, MediaWiki does not. A letter whose capital is two letters stays.
    first = "İ" if language == "tr" and title[0] == "i" else title[0].title()
    return first + title[1:] if len(first) == 1 else title


# ---------------------------------------------------------------------------------------- taking things out of the page

_GONE = (  # tags whose contents are not text of the article
    "ref|references|gallery|timeline|math|chem|ce|code|syntaxhighlight|source|score|graph|hiero|imagemap|categorytree|"
    "templatedata|templatestyles|mapframe|maplink|inputbox|includeonly|style|script"
)
_OPAQUE = re.compile(rf"<(?:!--|({_GONE}|nowiki|pre)(?:\s[^<>]*)?/?>)", re.IGNORECASE)
_CLOSERS = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in f"{_GONE}|nowiki|pre".split("|")}
_CLOSERS["!--"] = re.compile("-->")
_MARKUP = re.compile(r"[][{}'<>=*#:;|!&_\n-]")


def _remove_opaque(text: str) -> str:
    """Removes comments and the tags whose contents are not wikitext, from left to right: what opens first wins."""
    kept, position = [], 0
    unclosed = set()  # names without a closer from here on: do not search to the end again for each of many "<ref>"
    for match in _OPAQUE.finditer(text):
        if match.start() < position:
            continue
        name, contents, end = (match[1] or "!--").lower(), "", match.end()
        if not match[0].endswith("/>"):
            closer = None if name in unclosed else _CLOSERS[name].search(text, end)
            if closer is None:
                unclosed.add(name)
                continue  # the text stays; the tag is removed with the other tags
            contents, end = text[end : closer.start()], closer.end()
        kept.append(text[position : match.start()])
        position = end
        if name == "!--":
            if text[match.start() - 1 : match.start()] == "\n" == text[end : end + 1]:
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


def _variant(match: re.Match) -> str:
    """-{zh-hans:计算机; zh-hant:電腦}- -> 计算机: readers of the Chinese Wikipedia choose a variant."""
    flags, bar, rules = match[1].rpartition("|")
    if bar and flags.strip() in ("H", "T", "-"):  # a rule for the rest of the page or for its title
        return _GAP
    pairs = [rule.strip().partition(":") for rule in rules.split(";")]
    forms = {variety: form.strip() for variety, colon, form in pairs if colon and variety.startswith("zh")}
    return next((forms[variety] for variety in ("zh-hans", "zh-cn", "zh", *forms) if variety in forms), rules)


def _rewrite_markup(text: str, language: str) -> str:
    """Rewrites tags, magic words and external links; internal links, bold and italics come later."""
    if language.startswith("zh"):
        text = _VARIANT.sub(_variant, text)
    if "__" in text:
        # __NOTOC__, __目次__; not __init__
        text = _MAGIC_WORD.sub(lambda match: _GAP if match[0] == match[0].upper() else match[0], text)
    text = _BREAK.sub(" ", _BLOCK_TAG.sub("\n\n", text))
    return _EXTERNAL.sub(r"\1", _TAG.sub(_GAP, text))


# ----------------------------------------------------------------------------------------------------- where links lead

# Kinds of link targets. HIDDEN: files, media and categories, which are not part of the text.
ARTICLE, HIDDEN, LANGUAGE, OTHER = "article", "hidden", "language", "other"

# Language -> its names for files, media and categories; its link trail: letters right after a link that belong to it:
# [[bus]]es. mLUKE's 24 languages; the English names work everywhere. All are lower case and come from siteinfo, that
# is, namespaces with aliases, link trails, interwiki prefixes. Vietnamese has the French trail, in MediaWiki as well.
_WIKIS = {
    "en": ("file|image|media|category", "a-z"),
    "ar": (
        "ملف|صورة|ميديا|وسائط|تصنيف",
        "a-zء-ي\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed",
    ),
    "bn": ("চিত্র|মিডিয়া|বিষয়শ্রেণী", "\u0980-\u09ff"),
    "de": ("datei|bild|medium|kategorie", "a-zäöüß"),
    "el": (
        "αρχείο|εικόνα|μέσο|μέσον|κατηγορία",
        "a-zαβγδεζηθικλμνξοπρστυφχψωςΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩάέήίόύώϊϋΐΰΆΈΉΊΌΎΏΪΫ",
    ),
    "es": ("archivo|imagen|medio|categoría|cat", "a-záéíóúñ"),
    "fi": ("tiedosto|kuva|luokka", "a-zäö"),
    "fr": ("fichier|média|catégorie", "a-zàâçéèêîôûäëïöüùÇÉÂÊÎÔÛÄËÏÖÜÀÈÙ"),
    "hi": ("चित्र|मीडिया|श्रेणी|श्र", "a-z\u0900-\u0963\u0966-\u097f\ua8e0-\ua8ff"),
    "id": ("berkas|gambar|kategori", "a-z"),
    "it": ("immagine|categoria|cat", "a-zàéèíîìóòúù"),
    "ja": ("ファイル|画像|メディア|カテゴリ", ""),
    "ko": ("파일|그림|미디어|분류", "a-z"),
    "nl": ("bestand|afbeelding|categorie", "a-zäöüïëéèà"),
    "pl": ("plik|grafika|kategoria", "a-zęóąśłżźćńĘÓĄŚŁŻŹĆŃ"),
    "pt": ("ficheiro|arquivo|imagem|multimédia|categoria", "a-záâãàéêẽçíòóôõq\u0303úüűũ"),
    "ru": ("файл|изображение|медиа|категория|к", "a-zа-яё"),
    "sv": ("fil|bild|kategori", "a-zåäöéÅÄÖÉ"),
    "sw": ("picha|faili|jamii", "a-z"),
    "te": ("దస్త్రం|ఫైలు|బొమ్మ|మీడియా|వర్గం", "\u0c01-\u0c6f"),
    "th": ("ไฟล์|ภาพ|สื่อ|หมวดหมู่", "a-z"),
    "tr": ("dosya|resim|ortam|medya|kategori|kat", "a-zÇĞçğİıÖöŞşÜüÂâÎîÛû"),
    "vi": ("tập tin|hình|phương tiện|thể loại", "a-zàâçéèêîôûäëïöüùÇÉÂÊÎÔÛÄËÏÖÜÀÈÙ"),
    "zh": ("文件|档案|檔案|图像|圖像|图片|圖片|媒体|媒體|媒体文件|媒體文件|媒体档案|媒體檔案|分类|分類|cat", ""),
}
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


class _Wiki(NamedTuple):
    prefixes: dict[str, str]  # prefix of a link target -> kind of target
    hidden_link: re.Pattern  # [[File:..]] or [[Category:..]]; links and single brackets may be inside
    trail: re.Pattern


@lru_cache
def _wiki(language: str) -> _Wiki:
    names, letters = _WIKIS.get(language, ("", "a-z"))
    hidden = f"{_WIKIS['en'][0]}|{names}".strip("|").split("|")
    prefixes = dict.fromkeys(_PROJECTS.split() + _OTHER_NAMESPACES.split("|"), OTHER)
    prefixes |= dict.fromkeys(_LANGUAGES.split(), LANGUAGE) | dict.fromkeys(hidden, HIDDEN)
    inside = r"[^\[\]]*+(?:(?:\[\[[^\[\]]*+\]\]|\[[^\[\]]*+\])[^\[\]]*+)*+"
    names = "|".join(hidden).replace(" ", "[ _]+")
    hidden_link = re.compile(rf"\[\[[\s_]*(?:{names})[\s_]*:{inside}\]\]", re.IGNORECASE)
    return _Wiki(prefixes, hidden_link, re.compile(f"[{letters}]+" if letters else "(?!)"))


def leads_to(target: str, language: str) -> str:
    """What the target of a link is, judged by its prefix."""
    prefix, colon, _ = target.lstrip(": ").partition(":")
    prefix = " ".join(prefix.replace("_", " ").lower().split())
    kind = _wiki(language).prefixes.get(prefix, ARTICLE) if colon else ARTICLE
    # [[:File:X]] links to the page of the file instead of showing it.
    return OTHER if target[:1] == ":" and kind != ARTICLE else kind


# ---------------------------------------------------------------------------------------------------------------- links

_NO_TARGET = re.compile(r"[\n\[\]{}<>]")
_BLANK = f" \t{_GAP}"


def _remove_hidden_links(text: str, language: str) -> str:
    """Takes out [[File:..]] with its caption, and [[Category:..]]."""
    for _ in range(5):  # a caption may contain further files
        text, found = _wiki(language).hidden_link.subn(_GAP, text)
        if not found:
            break
    return text


def _pipe_trick(target: str) -> str:
    """[[Help:Mercury (planet)|]] is rendered "Mercury", [[Boston, Massachusetts|]] "Boston"."""
    name = target.removeprefix(":")
    name = name.partition(":")[2].strip() or name
    for opening, closing in ("()", "（）"):
        if name.endswith(closing):
            return name.rpartition(opening)[0].strip() or name
    return name.partition(", ")[0]


def _link_text(inside: str, trail: str, is_alone: bool, titles: list[str], language: str) -> str | None:
    """[[inside]]trail -> a marked link, or plain text if it leads to no article. None if it is not a link."""
    target, bar, surface = inside.partition("|")
    target = target.strip()
    if not target or _NO_TARGET.search(target) or "\n\n" in surface:  # a link does not span paragraphs
        return None
    kind = leads_to(target, language) if ":" in target else ARTICLE
    if kind == HIDDEN or kind == LANGUAGE and is_alone:
        return _GAP + trail  # a language link alone on its line belongs to the sidebar
    if not bar:
        surface = target.removeprefix(":")
    elif not surface:
        surface = _pipe_trick(target)
    surface = surface.replace("\n", " ") + trail
    title = normalize_title(target.replace(_GAP, ""), language) if kind == ARTICLE else ""
    if not title:  # [[wikt:word]], [[#section]]
        return surface
    titles.append(title)
    return f"{_LINK}{len(titles) - 1}{_SURFACE}{surface}{_END}"


def _mark_links(text: str, titles: list[str], language: str) -> str:
    """Replaces links by marks. Links do not nest: in [[a [[b]] c]] only [[b]] is one."""
    first, *chunks = text.split("[[")
    kept = [first]
    trailing = _wiki(language).trail.match
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
_LINE = re.compile(r"(=.+=\s*$)|[*#:;]+|-{4,}|\s*$")  # a heading, a list item, a rule or an empty line
_MARK = re.compile(f"{_LINK}(\\d+){_SURFACE}([^{_END}]*){_END}")
_EMPTY = re.compile(f"{_LINK}\\d+{_SURFACE} *{_END}")
_SPACE_INSIDE = re.compile(f"({_LINK}\\d+{_SURFACE}) ")


def _remove_quotes(line: str) -> str:
    """''italic'', '''bold''', '''''both'''''. In a run of four or more than five, the first ones are apostrophes.

    If bold and italics are both unpaired, as in l'''Express'', one ''' is an apostrophe and '': the first after a
    single letter, otherwise the first after a longer word, otherwise the first (MediaWiki, Parser::doQuotes).
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
    """(text of a paragraph, whether it is before the first heading), empty ones included. Plain lines are joined."""
    lines, is_abstract = [], True
    for line in text.split("\n"):
        if "''" in line:
            line = _remove_quotes(line)
        if _GAP in line:  # not earlier: ''{{x}}'' is not ''''
            line = line.replace(_GAP, "")
        special = _LINE.match(line) if line[:1] in "=*#:;- \t\r" else None  # "" is in any string: empty lines too
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
    """Cleans a block and replaces its marks by spans. None if nothing is left."""
    block = " ".join(decode_entities(block).split())
    if _LINK not in block:
        return Paragraph(block, [], is_abstract) if block else None
    pieces = _MARK.split(block)  # text, number, surface, text, number, surface, text
    if any(not surface or surface != surface.strip() for surface in pieces[2::3]):
        block = _SPACE_INSIDE.sub(r" \1", _EMPTY.sub("", block)).replace(f" {_END}", f"{_END} ")
        pieces = _MARK.split(" ".join(block.split()))
    links, position = [], 0
    for before, number, surface in zip(pieces[::3], pieces[1::3], pieces[2::3]):
        start = position + len(before)
        position = start + len(surface)
        links.append(Link(titles[int(number)], start, position))
    del pieces[1::3]
    text = "".join(pieces)
    return Paragraph(text, links, is_abstract) if text else None


def parse(wikitext: str, language: str = "en") -> list[Paragraph]:
    """The paragraphs of a page; never raises, whatever the markup. `language`: the wiki's code, "en" or "simple"."""
    text = wikitext
    for mark in (_GAP, _LINK, _SURFACE, _END):  # forbidden in XML, so not in a dump
        text = text.replace(mark, "")
    text = _remove_templates_and_tables(_remove_opaque(text))
    titles = []
    text = _remove_hidden_links(_rewrite_markup(text, language), language)
    blocks = _blocks(_mark_links(text, titles, language))
    paragraphs = (_paragraph(block, titles, is_abstract) for block, is_abstract in blocks if block)
    return [paragraph for paragraph in paragraphs if paragraph]
