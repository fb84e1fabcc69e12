"""Every construct with its text and links written out; any text at all; time on hostile pages; real dumps; oracles.

    pytest tests/test_wikitext.py

An expected paragraph is written as "see [Bus|buses] now": the text "see buses now" with a link to "Bus".
"""

import bz2
import pickle
import re
import time
import zlib
from collections import Counter
from itertools import islice

import pytest
from conftest import shared_data
from hypothesis import given, settings
from hypothesis import strategies as st

from luke_mini.wiki_dump import read_dump
from luke_mini.wikitext import ARTICLE, HIDDEN, OTHER, Link, Paragraph, Site, leads_to, normalize_title, parse


def show(paragraph: Paragraph) -> str:
    """The text with each link as [title|surface]."""
    text, position = "", 0
    for link in paragraph.links:
        text += f"{paragraph.text[position:link.start]}[{link.title}|{paragraph.text[link.start:link.end]}]"
        position = link.end
    return text + paragraph.text[position:]


def shown(wikitext: str, site: Site | str = "en") -> list[str]:
    paragraphs = parse(wikitext, site)
    assert_sound(paragraphs)
    return [show(paragraph) for paragraph in paragraphs]


def assert_sound(paragraphs: list[Paragraph]):
    """What every result keeps, whatever the page."""
    in_abstract = True
    for text, links, is_abstract in paragraphs:
        assert text and text == " ".join(text.split())
        assert not re.search("[\1\2]", text)
        assert is_abstract <= in_abstract
        in_abstract = is_abstract
        position = 0
        for title, start, end in links:
            assert position <= start < end <= len(text)
            surface = text[start:end]
            assert surface == surface.strip()
            assert title and title == " ".join(title.split()) and "#" not in title and title[0] != ":"
            position = end


# --------------------------------------------------------------------------------------------------------------- titles


@pytest.mark.parametrize(
    "title, expected",
    [
        ("foo", "Foo"), ("foo_bar", "Foo bar"), ("  foo \t _ bar\n", "Foo bar"), ("_foo__bar_", "Foo bar"),
        ("foo#bar", "Foo"), ("#bar", ""), ("", ""), (" ", ""), (":", ""), (":foo", "Foo"), (": foo", "Foo"),
        (":Category:foo", "Category:foo"), ("AT&amp;T", "AT&T"), ("AT&T", "AT&T"), ("a&#39;b", "A'b"),
        ("a&#x41;", "AA"), ("a&copyb", "A&copyb"), ("a&nosuch;b", "A&nosuch;b"), ("a&nbsp;b", "A b"),
        ("caf%C3%A9", "Café"), ("a%20b", "A b"), ("100%", "100%"), ("50%ab", "50%ab"),  # %ab alone is no UTF-8
        ("a%5Bb", "A%5Bb"),  # no title has brackets
        ("a%23b", "A"), ("C&#35;", "C"), ("éa", "Éa"), ("ß", "ß"),  # its capital would be two letters
        ("ა", "ა"),  # Georgian
        ("ǆ", "ǅ"), ("日本", "日本"), ("a\u200eb", "Ab"), ("a\u3000\u00a0b", "A b"), ("iPod", "IPod"),
        ("İstanbul", "İstanbul"),
    ],
)  # fmt: skip
def test_normalize_title(title, expected):
    assert normalize_title(title) == expected
    assert normalize_title(expected) == expected or "%" in title or "&" in title


@pytest.mark.parametrize("language", ["tr", "az", "kaa"])
def test_turkish_i_has_a_turkish_capital(language):
    found = [normalize_title(*given) for given in (("istanbul", language), ("istanbul", "en"), ("ırmak", language))]
    assert found == ["İstanbul", "Istanbul", "Irmak"]


def test_a_wiki_that_keeps_case():
    """As the Lojban Wikipedia and all Wiktionaries."""
    given = ("mlatu_x", ":mlatu#b", "éa", "Mlatu")
    assert [normalize_title(title, "jbo", True) for title in given] == ["mlatu x", "mlatu", "éa", "Mlatu"]
    assert shown("[[mlatu]]s [[Mlatu|b]]", Site("jbo", (), True)) == ["[mlatu|mlatus] [Mlatu|b]"]


@given(st.text(max_size=30))
def test_normalize_title_of_anything(title):
    normal = normalize_title(title)
    assert "#" not in normal and "_" not in normal and normal == " ".join(normal.split())


# ----------------------------------------------------------------------------------------------------------- paragraphs


def test_a_page():
    page = """{{Infobox|name={{lower|x}}|image=[[File:a.jpg]]}}
'''Norway''' is a [[country]] in [[Northern Europe|Northern]]
[[Europe]].<ref>{{cite|a}} [[Not]]</ref>

It has [[fjord]]s.

== History ==
=== Before ===
* [[Viking]]
* other

[[Category:Countries]]
"""
    assert parse(page) == [
        Paragraph(
            "Norway is a country in Northern Europe.",
            [Link("Country", 12, 19), Link("Northern Europe", 23, 31), Link("Europe", 32, 38)],
            True,
        ),
        Paragraph("It has fjords.", [Link("Fjord", 7, 13)], True),
        Paragraph("Viking", [Link("Viking", 0, 6)], False),
        Paragraph("other", [], False),
    ]


@pytest.mark.parametrize(
    "wikitext, expected",
    [
        # Where paragraphs end.
        ("", []), (" \n\n\t\n", []), ("a\nb", ["a b"]), ("a\n\nb", ["a", "b"]), ("a\n \t\nb", ["a", "b"]),
        ("a\r\n\r\nb", ["a", "b"]), ("a\n== H ==\nb", ["a", "b"]), ("a\n==H== \nb", ["a", "b"]),
        ("a\n====== H [[l]] ======\nb", ["a", "b"]), ("a\n== H ==<!-- x -->\nb", ["a", "b"]), ("a\n= b", ["a = b"]),
        ("a\n=", ["a ="]), ("x = y =", ["x = y ="]),
        ("* a\n** b\n# c\n#: d\n; e\n: f", ["a", "b", "c", "d", "e", "f"]), ("* a\nb", ["a", "b"]),
        ("a * b # c", ["a * b # c"]), ("a\n----\nb", ["a", "b"]), ("a\n---- b", ["a", "b"]),
        ("a\n--- b", ["a --- b"]), (" a  b\t c\u00a0d\u3000e ", ["a b c d e"]),
        ("a<br>b<br/>c<BR clear=all />d", ["a b c d"]), ("<p>a</p><p>b</p>", ["a", "b"]),
        ("<blockquote>a</blockquote>b<div class='x'>c</div>", ["a", "b", "c"]),
        ("<ul><li>a</li><li>b</li></ul>", ["a", "b"]),
        # Templates.
        ("a {{b}} c", ["a c"]), ("a{{b|{{c|[[d]]}}|e=f\n\ng}}h", ["ah"]), ("a{{{1|b}}}c", ["ac"]),
        ("a{{b|{c}|d}}e", ["ae"]), ("a{{b}}}}c", ["a}}c"]), ("a{{b {{c}} d", ["a{{b d"]),
        ("a{{b\n\nc", ["a{{b", "c"]), ("a {{#if:x|{{y}}|z}} b", ["a b"]), ("a{{b|<nowiki>}}</nowiki>c}}d", ["ad"]),
        ("a{{b|<!-- }} -->c}}d", ["ad"]),
        # References, comments and other contents that are no text.
        ("a<ref>b</ref>c", ["ac"]), ('a<ref name="x">b [[c]]</ref>d<ref name=x />e<REF\nname=y/>f', ["adef"]),
        ("a<ref>b<br/>{{c</ref>d", ["ad"]), ("a<ref>b", ["ab"]), ("a</ref>b", ["ab"]),
        ("a<references>\n<ref>b</ref></references>c<references/>", ["ac"]), ("a<!-- b\n\nc -->d", ["ad"]),
        ("a\n<!-- b -->\nc", ["a c"]),
        ("a<!-- b\n\n[[c]] <ref>", ["a"]), ("a<includeonly>b [[c]]", ["a"]), ("a<!-- <ref> -->b<ref>c</ref>d", ["abd"]),
        ("a<math>x<y</math>b<chem>c</chem>", ["ab"]), ("a<gallery>\nFile:b.jpg|[[c]]\n</gallery>d", ["ad"]),
        ("a<timeline>b</timeline><code>c</code><source>e</source>f", ["af"]),
        ("a<syntaxhighlight lang=x>[[d]]</syntaxhighlight>f", ["af"]),
        ("a<math>b", ["ab"]), ("a <MATH>b</Math > c", ["a c"]),
        # Tables.
        ("a\n{| class=x\n! b\n|-\n| c || [[d]]\n|}\ne", ["a", "e"]),
        ("a\n{|\n| b\n{|\n| c\n|}\n| d\n|}\ne", ["a", "e"]), ("a\n:{|\n| b\n  |}\ne", ["a", "e"]),
        ("a\n{|\n| {{b|\n|}}\n| c\n|}\nd", ["a", "d"]),
        ("a<table class='x'><tr><td>b<table><td>c</td></TABLE></td></tr></table>d", ["ad"]),
        # What nobody closes ends with the page; what nobody opens is text, and so is a {| within a line.
        ("a <table>b\n\n[[c]]", ["a"]), ("a\n{|\nb\n== c ==\nd", ["a"]), ("a\n{|\n{|\n|}\nb", ["a"]),
        ("a</table>b\n|}\nc", ["ab |} c"]), ("a {| b |} c\n|} d", ["a {| b |} c |} d"]),
        # A template that is a character, and brackets that hold nothing but templates.
        ("a{{mdash}}b{{Ndash }}c{{snd}}d{{nbsp}}e{{ · }}f", ["a—b–c – d e · f"]), ("[[a{{!}}b]]", ["[A|b]"]),
        ("a{{mdash|x}}b", ["ab"]), ("a ({{b}}; {{c}}) d", ["a d"]), ("a (''{{b}}''), （{{c}}、d）", ["a, （、d）"]),
        ("a () ( , ) (b{{c}}) ({{d}} e)", ["a () ( , ) (b) ( e)"]), ("a ([http://b]<ref>c</ref>) d", ["a d"]),
        # Tags, magic words, bold, italics.
        ("a <small>b</small> <span style='x'>[[c]]</span><sup>2</sup>", ["a b [C|c]2"]), ("a < b > c", ["a < b > c"]),
        ("1<2 and 3>2", ["1<2 and 3>2"]), ("__NOTOC__a __TOC__ b__init__", ["a b__init__"]),
        ("__toc__a __NoEditSection__ __目次__ __без_огл__ __index__ __INDEX__ b", ["a __index__ b"]),
        ("''a'' '''b''' '''''c'''''", ["a b c"]), ("'''''a''' b''", ["a b"]), ("it's ''x'''s", ["it's x's"]),
        ("''''a''''", ["'a'"]), ("''''''a''''''", ["'a'"]), ("l'''Express''", ["l'Express"]),
        ("dans l'''Express'' et '''b'''", ["dans l'Express et b"]), ("'''a''' d'''b'' x", ["a d'b x"]),
        ("'''a", ["a"]), ("a''{{b}}''c '''''{{d}}'''''", ["ac"]),
        # Entities.
        ("a&nbsp;b &amp; &lt;c&gt; &#8211; &#x2013;&eacute;", ["a b & <c> – –é"]),
        ("&copy &nosuch; &amp;amp; AT&T", ["&copy &nosuch; &amp; AT&T"]),
        ("&#91;&#91;a]] &#39;&#39;b&#39;&#39;", ["[[a]] ''b''"]),
        # Literal text.
        ("<nowiki>[[a]] ''b'' {{c}} <br> &amp;</nowiki>", ["[[a]] ''b'' {{c}} <br> &"]),
        ("<nowiki>* a</nowiki>\n<nowiki>== b ==</nowiki>", ["* a == b =="]),
        ("<pre>a [[b]]\n\n* c</pre>", ["a [[b]] * c"]), ("a<nowiki/>b <nowiki />c", ["ab c"]),
        ("<nowiki><ref></nowiki>a<ref>b</ref>", ["<ref>a"]),
        # External links.
        ("[http://a.b/c d e] f", ["d e f"]), ("a [https://b.c] d", ["a d"]), ("[//a.b c] [mailto:a@b.c d]", ["c d"]),
        ("[http://a ''b'' [[c]] d [e]] f", ["b [C|c] d [e] f"]), ("see http://a.b/c now", ["see http://a.b/c now"]),
        ("a [b] c", ["a [b] c"]), ("[http://a b", ["[http://a b"]),
        ("[http://a''b'' c] [http://d'e f] [http://g\"h\"]", ['b c f "h"']), ("x http://a''b''", ["x http://ab"]),
        # Links.
        ("[[a]]", ["[A|a]"]), ("see [[a b]].", ["see [A b|a b]."]), ("[[a|b]]", ["[A|b]"]),
        ("[[a_b|c]]", ["[A b|c]"]), ("[[a#b|c]]", ["[A|c]"]), ("[[a#b]]", ["[A|a#b]"]), ("[[#b|c]] [[#d]]", ["c #d"]),
        ("[[a|b|c]]", ["[A|b|c]"]), ("[[:a]] [[:a|b]]", ["[A|a] [A|b]"]),
        ("[[AT&amp;T]] [[caf%C3%A9|b]]", ["[AT&T|AT&T] [Café|b]"]), ("[[a\u200e]]", ["[A|a\u200e]"]),
        # The trail belongs to the link.
        ("[[bus]]es", ["[Bus|buses]"]), ("[[bus|car]]s and", ["[Bus|cars] and"]),
        ("[[bus]]Es [[bus]]2 [[bus]]-es", ["[Bus|bus]Es [Bus|bus]2 [Bus|bus]-es"]),
        ("[[bus]]''es'' [[bus]]<ref/>es [[bus]]<nowiki/>es", ["[Bus|bus]es [Bus|bus]es [Bus|bus]es"]),
        ("[[bus]]{{x}}es [[bus]]<!-- x -->es", ["[Bus|bus]es [Bus|buses]"]),
        ("''[[a]]''s [[a]]<b>s</b>", ["[A|a]s [A|a]s"]),
        # The surface is cleaned.
        ("[[a|''b'' '''c''']]", ["[A|b c]"]), ("[[a|b{{c}}d]]", ["[A|bd]"]), ("[[a|b<ref>c</ref>]]", ["[A|b]"]),
        ("[[a|<span>b</span>&nbsp;c]]", ["[A|b c]"]), ("[[a| b ]]c", ["[A|b c]"]), ("x[[a| b ]] y", ["x [A|b] y"]),
        ("x[[a|&nbsp;b'' '']]y", ["x [A|b y]"]), ("[[a|b\nc]] [[a|b\n* c]]", ["[A|b c] [A|b * c]"]),
        ("[[a|b\n\nc]]", ["[[a|b", "c]]"]), ("x [[a|&nbsp;]] [[b|<br>]] [[c|'''']] y", ["x [C|'] y"]),
        ("[[a|[b]]]s [[a|[b] c]] [[a|b]]]", ["[A|[b]s] [A|[b] c] [A|b]]"]), ("[[a|<nowiki>[b]</nowiki>]]", ["[A|[b]]"]),
        # The pipe trick, should it be in a stored page.
        ("[[a (b)|]] [[a, b|]] [[Help:a (b)|]] [[a（b）|]] [[c|]]", ["[A (b)|a] [A, b|a] a [A（b）|a] [C|c]"]),
        # What leads to no article is text.
        ("[[:Category:A]] [[:Category:A|b]] [[:File:A.jpg|c]]", ["Category:A b c"]),
        ("[[wikt:a]] [[wikt:a|b]] [[:fr:a]] [[Help:a]] [[User talk:a|c]]", ["wikt:a b fr:a Help:a c"]),
        ("x [[fr:a|b]]s [[s:c]]", ["x bs s:c"]), ("a\n[[fr:b]]\n[[zh-min-nan:c]]\n\nd", ["a", "d"]),
        ("a\n{{x}} [[fr:b]] [[de:c]] ", ["a"]),
        ("[[2001: A Space Odyssey]] [[Re:Zero]]", ["[2001: A Space Odyssey|2001: A Space Odyssey] [Re:Zero|Re:Zero]"]),
        ("[[:w]] [[w]] [[:s|x]]", ["[W|w] [W|w] [S|x]"]),
        # Pictures and categories vanish.
        ("a [[File:b.jpg|thumb|c [[d]] e]] f", ["a f"]), ("a [[image:b.jpg|c [[d|e]] [http://f g] [h]]] i", ["a i"]),
        ("a [[ File : b.jpg ]] [[Media:c.ogg|d]] e", ["a e"]), ("a [[File:b|c [[File:d|e [[f]]]] [[g]]]] h", ["a h"]),
        ("[[a|b [[File:c.png]] d]]", ["[A|b d]"]), ("[[Category:a]] [[category:b|c]]d", ["d"]),
        ("a\n\n[[Category:b]]\n[[Category:c]]", ["a"]),
        ("[[File:a|b [[c|[d]e]] [f] g]] h", ["h"]), ("[[File:a|b [[c|[d]]] e]]f [[File:g|[h]]] i", ["f i"]),
        ("[[File:a|b [[c|[d]]]]]e", ["e"]), ("[[[File:a]]] b", ["[] b"]), ("[[File:a|b [[c]] d\n\n[[Category:e]]f", [
            "[[File:a|b [C|c] d", "f"]),
        # A prefix may be encoded.
        ("[[File&#58;a|b [[c]]]]d[[Category%3Ae]] [[fr&#x3A;f|g]] [[fr%3ah|i]]", ["d g i"]),
        ("a\n[[fr&colon;b]]\nc", ["a", "c"]), ("[[&#91;]] [[a&#124;b]]", ["[ a|b"]),
        # Malformed.
        ("[[a", ["[[a"]), ("a]] b", ["a]] b"]), ("[[a [[b]] c]]", ["[[a [B|b] c]]"]),
        ("[[a|b [[c]] d", ["[[a|b [C|c] d"]), ("[[]] [[|]] [[|a]] [[ ]]", ["[[]] [[|]] [[|a]] [[ ]]"]),
        ("[[a\nb]]", ["[[a b]]"]), ("[[[a]]] [[[[b]]]]", ["[[A|a]] [[[B|b]]]"]), ("[[a] b", ["[[a] b"]),
        ("[[a{b}]] [[a<b]]", ["[[a{b}]] [[a<b]]"]), ("<e[[a|>]] [[b]]", ["]] [B|b]"]),
        ("[[http://a b]]", ["[b]"]), ("[[File:a|b", ["[[File:a|b"]),
    ],
)  # fmt: skip
def test_what_markup_becomes(wikitext, expected):
    assert shown(wikitext) == expected


@pytest.mark.parametrize(
    "wikitext, expected",
    [
        ("a\n\n* b\n== H ==\nc\n\nd\n=== I ===\ne", [True, True, False, False, False]),
        ("== H ==\nc", [False]), ("{{x}}\n\na\n==H", [True]),
    ],
)  # fmt: skip
def test_the_abstract_is_what_stands_before_the_first_heading(wikitext, expected):
    assert [paragraph.is_abstract for paragraph in parse(wikitext)] == expected


@pytest.mark.parametrize(
    "language, wikitext, expected",
    [
        ("de", "[[Haus|Häus]]chen", "[Haus|Häuschen]"), ("de", "[[Fuß]]bälle", "[Fuß|Fußbälle]"),
        ("en", "[[Fuß]]bälle", "[Fuß|Fußb]älle"), ("fr", "[[cheval]]é", "[Cheval|chevalé]"),
        ("ru", "[[дом]]ами", "[Дом|домами]"), ("pl", "[[dom]]ów", "[Dom|domów]"),
        ("bn", "[[ভারত]]ের", "[ভারত|ভারতের]"), ("ar", "[[كتاب]]ات", "[كتاب|كتابات]"),
        ("ja", "[[東京]]abc", "[東京|東京]abc"), ("ja", "[[東京]]都", "[東京|東京]都"), ("zh", "[[北京]]abc", "[北京|北京]abc"),
        ("tr", "[[istanbul]]'un", "[İstanbul|istanbul]'un"), ("simple", "[[bus]]es", "[Bus|buses]"),
        ("xx", "[[bus]]es", "[Bus|buses]"), ("hy", "[[գիրք]]ը", "[Գիրք|գիրքը]"), ("uk", "[[місто]]м", "[Місто|містом]"),
        ("ltg", "[[piļsāta]]ys", "[Piļsāta|piļsātays]"), ("mr", "[[पुणे]]चे", "[पुणे|पुणेचे]"),
        ("cs", "[[hrad]]ů", "[Hrad|hradů]"),
        ("ca", "[[gat]]'s [[gat]]''s''", "[Gat|gat's] [Gat|gat]s"), ("wuu", "[[a]]b", "[A|a]b"),
        ("sr", "-{sr-el:Beograd; sr-ec:Београд}- -{A|sr-el:x;sr-ec:-{[[а]]}-}- -{R|б}-", "Београд [А|а] б"),
        ("ku", "-{ku-arab:x;ku-latn:y}-", "y"), ("uz", "-{B:c}-", "B:c"), ("tt", "-{a}-", "-{a}-"),
        ("zh", "-{zh-hans:计算机;zh-hant:電腦}- -{A|zh-tw:甲;zh-cn:乙}- -{[[丙]]}- -{H|zh-cn:丁}-", "计算机 乙 [丙|丙]"),
        ("en", "-{a}-", "-{a}-"),
    ],
)  # fmt: skip
def test_languages_differ(language, wikitext, expected):
    assert shown(wikitext, language) == [expected]


PICTURES = {  # one of each language's own names for files, and for categories
    "ar": "ملف تصنيف", "bn": "চিত্র বিষয়শ্রেণী", "de": "Datei Kategorie", "el": "Αρχείο Κατηγορία",
    "en": "File Category", "es": "Archivo Categoría", "fi": "Tiedosto Luokka", "fr": "Fichier Catégorie",
    "hi": "चित्र श्रेणी", "id": "Berkas Kategori", "it": "Immagine Categoria", "ja": "ファイル カテゴリ",
    "ko": "파일 분류", "nl": "Bestand Categorie", "pl": "Plik Kategoria", "pt": "Ficheiro Categoria",
    "ru": "Файл Категория", "sv": "Fil Kategori", "sw": "Picha Jamii", "te": "దస్త్రం వర్గం",
    "th": "ไฟล์ หมวดหมู่", "tr": "Dosya Kategori", "vi": "Tập_tin Thể_loại", "zh": "文件 分类",
}  # fmt: skip


@pytest.mark.parametrize("language", PICTURES)
def test_pictures_and_categories_of_every_language(language):
    file, category = PICTURES[language].split()
    page = f"a [[{file}:b.jpg|c [[d]]]][[{file.lower()}:b]][[File:b]][[{category}:e]][[Category:e]] [[:{category}:e|f]]"
    assert shown(page, language) == ["a f"]
    assert shown(page.replace("_", " "), language) == ["a f"]


SITES = {  # headers as those wikis have them
    "uk": (-2, "Медіа", 4, "Вікіпедія", 6, "Файл", 10, "Шаблон", 14, "Категорія", 15, "Обговорення категорії"),
    "hy": (-2, "Մեդիա", 4, "Վիքիպեդիա", 6, "Պատկեր", 10, "Կաղապար", 14, "Կատեգորիա", 15, "Կատեգորիայի քննարկում"),
    "mr": (-2, "मिडिया", 4, "विकिपीडिया", 6, "चित्र", 10, "साचा", 14, "वर्ग", 15, "वर्ग चर्चा"),
    "ltg": (-2, "Medeja", 4, "Vikipedeja", 6, "Fails", 10, "Taiss", 14, "Kategoreja", 15, "Kategorejis sprīža"),
    "az": (-2, "Media", 4, "Vikipediya", 6, "Fayl", 10, "Şablon", 14, "Kateqoriya", 2, "İstifadəçi"),
}  # fmt: skip


@pytest.mark.parametrize("language", SITES)
def test_namespaces_of_the_header(language):
    names = dict(zip(SITES[language][::2], SITES[language][1::2]))
    site = Site(language, ((0, ""), *names.items()))
    media, project, file, template, category, other = names.values()
    page = f"""[[{file}:b.jpg|thumb|c [[d]] e [[f|[g]]]]] [[{media}:h|i]][[{category.lower()}:j]]
[[ {file.upper()} : b_c&d.jpg|{{{{x}}}}]] a [[:{category}:k|l]] [[{template}:m|n]] [[{other.replace(" ", "_")}:o|p]]
[[{project}&#58;q|r]] [[{file}x:s]]"""
    assert shown(page, site) == [f"a l n p r [{normalize_title(file + 'x:s', language)}|{file}x:s]"]
    assert leads_to(f"{file}:x", site) == leads_to("Image:x", site) == HIDDEN
    assert leads_to(f"{other}:x", site) == leads_to(f":{file}:x", site) == OTHER and leads_to("x:y", site) == ARTICLE


@pytest.mark.parametrize(
    "language, alias", [("uk", "Зображення"), ("hu", "Kép"), ("nb", "Bilde"), ("ltg", "Attēls"), ("als", "Bild")]
)
def test_aliases_that_no_header_has(language, alias):
    assert shown(f"[[{alias}:b.jpg|c]]a", language) == ["a"] and leads_to(f"{alias}:b", "en") == ARTICLE


@pytest.mark.parametrize("name", ["jawiki-2023", "bnwiki-2023"])
def test_namespace_names_equal_those_in_real_dumps(name):
    head = bz2.open(shared_data(f"wiki/{name}.xml.bz2"), "rt", encoding="utf-8").read(8000)
    names = dict(re.findall(r'<namespace key="(-?\d+)"[^>]*>([^<]+)<', head))
    hidden = (names["-2"], names["6"], names["14"], "File", "Media", "Category")
    assert {leads_to(f"{namespace}:x", name[:2]) for namespace in hidden} == {HIDDEN}


# ------------------------------------------------------------------------------------------------------------- any text

FRAGMENTS = (
    "[[ ]] [ ] {{ }} { } {{{ }}} {| |} |- | ! ' '' ''' '''' ''''' = == * # : ; ---- \n \n\n < > <!-- --> <ref> <ref/> "
    "</ref> <nowiki> </nowiki> <pre> </pre> <math> </math> <table> </table> <br> <p> <b> </b> & &amp; &nbsp; &#91; "
    "&#1; &#; __TOC__ __ -{ }- "
    "File: Category: :Category: fr: wikt: http://a [http://a a b a(b) , a_b # % %20 é 日本 \0 \1 \2 \1\x30\1 \1\x30\1a\1 "
    "\u200e \u3000 zh-hans:x; H|"
).split(" ")


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from([*FRAGMENTS, " "]), max_size=40), st.sampled_from(["en", "zh", "fr", "tr"]))
def test_no_markup_breaks_it(fragments, language):
    wikitext = "".join(fragments)
    assert_sound(parse(wikitext, language))


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_no_text_breaks_it(wikitext):
    assert_sound(parse(wikitext))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab c\n.éß日", max_size=100))
def test_plain_text_stays(wikitext):
    assert " ".join(p.text for p in parse(wikitext)).split() == wikitext.split()


# ----------------------------------------------------------------------------------------------------------------- time

HOSTILE = [
    "[[", "{{", "]]", "}}", "{|\n", "\n|}", "{|\n|}", "<ref>", "<ref name=a ", "<!--", "<nowiki>", "<math>", "<table>",
    "</table>", "<", "<a", "[http://a ", "[http://a [b] ", "[[a|", "[[File:", "[[File:a|[[b]] ", "[[a]]", "[[a [[b]]",
    "[[[", "'''", "''' ''", "'", "&", "&#", "=\n=", "= ", "\n=a", "*", "\n*", " ", "\n", "\n ", "__a", "_", "-{", "{{{",
    "{{{a", "{{disambig", "{{homonymie ", "[[:", "[[%20", "[[File:a|[b", "[[File:a|[[b|[c]]] ", "[[File&#58;", "]]]",
    "(\2", "({{a}} ", "({{a}}", "{{mdash", "{{mdash}}", "{{ ",
    "-{-{", "-{a:b;}-", "\n{|\n{|\n|}", "<table><table></table>",
    "<!-- -->", "[//a]", "[//a ''", "__a__", "{{!}}", "[[a|[", "[[fr:a]]", "[[Category:a]]",
]  # fmt: skip
STRETCHED = ["[//a", "[//a b", "[[File", "{{mdash", "<ref ", "(\2", "=", "''", "[[a|", "__a", "<!--", "-{", "&#", "\n:"]


@pytest.mark.parametrize(
    "make",
    [*(lambda length, unit=unit: unit * (length // len(unit)) for unit in HOSTILE),
     *(lambda length, unit=unit: unit + " " * length for unit in STRETCHED)],
    ids=map(repr, [*HOSTILE, *(f"{unit} and spaces" for unit in STRETCHED)]),
)  # fmt: skip
def test_time_grows_with_the_page_and_no_faster(make):
    """Four times the page may take four times as long; with a quadratic step it would take sixteen times."""

    def seconds(length: int) -> float:
        wikitext, times = make(length), []
        for _ in range(3):
            start = time.process_time()
            parse(wikitext, "zh")
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(100_000) < max(9 * seconds(25_000), 0.02)


@pytest.mark.parametrize(
    "opener, closer", [("[[", "a]]"), ("{{", "}}"), ("[[File:", "]]"), ("\n{|", "\n|}"), ("<table>", "</table>")]
)
def test_deep_nesting(opener, closer):
    assert_sound(parse(opener * 50_000 + closer * 50_000))


# ----------------------------------------------------------------------------------------------------------- real dumps

MARKUP = re.compile(r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}|''|</?\w+>|&\w+;|__[A-Z]+__")
DUMPS = [
    "arwiki-mini", "bnwiki-2023", "dewiki-mini", "enwiki-106-pages", "enwiki-mini", "eswiki-mini", "fiwiki-mini",
    "frwiki-mini", "idwiki-mini", "jawiki-2023", "jawiki-mini", "kowiki-mini", "simplewiki-mini", "svwiki-mini",
    "zhwiki-mini",
]  # fmt: skip


@pytest.mark.parametrize("name", DUMPS)
def test_real_dumps_come_out_sound_and_clean(name):
    """The invariants on every page; and of the markup that a reader never sees, next to nothing is left."""
    paragraphs, titles = [], set()
    for page in islice(read_dump(shared_data(f"wiki/{name}.xml.bz2")), 120):
        parsed = parse(page.wikitext, name.partition("wiki")[0])
        assert_sound(parsed)
        paragraphs += parsed
        titles |= {link.title for paragraph in parsed for link in paragraph.links}
        assert page.title == normalize_title(page.title)
    assert titles and all(title == normalize_title(title) for title in titles if "%" not in title and "&" not in title)
    assert sum(bool(MARKUP.search(p.text)) for p in paragraphs) <= 0.002 * len(paragraphs)  # a bracket was not closed


# -------------------------------------------------------------------------------------------------------------- oracles

WORD = re.compile(r"\w+")


def every_sixth_page() -> list:
    pages = read_dump(shared_data("wiki/enwiki-106-pages.xml.bz2"))
    return [page for page in pages if not page.redirect][::6]


def assert_nearly_equal(ours: Counter, theirs: Counter, least: float):
    common = (ours & theirs).total()
    assert common / ours.total() > least and common / theirs.total() > least


def is_no_text(node, nodes) -> bool:
    """Whether a node of mwparserfromhell is of a kind that we leave out: headings, references, tables, pictures, ..."""
    if isinstance(node, nodes.Wikilink):
        return leads_to(str(node.title).strip() or "x", "en") == HIDDEN
    tags = "ref table math gallery timeline code source syntaxhighlight".split()
    return isinstance(node, nodes.Heading) or isinstance(node, nodes.Tag) and str(node.tag).lower() in tags


def test_words_equal_those_of_mwparserfromhell():
    """The words of strip_code, after what is no text was removed."""
    mwparserfromhell = pytest.importorskip("mwparserfromhell", reason="oracle: mwparserfromhell is not installed")
    ours, theirs = Counter(), Counter()
    for page in every_sixth_page():
        tree = mwparserfromhell.parse(re.sub("'''*", "", page.wikitext))
        for node in tree.filter(recursive=True, matches=lambda node: is_no_text(node, mwparserfromhell.nodes)):
            try:
                tree.remove(node)
            except ValueError:
                pass  # its parent has gone before
        theirs.update(WORD.findall(tree.strip_code()))
        ours.update(word for p in parse(page.wikitext) for word in WORD.findall(p.text))
    assert_nearly_equal(ours, theirs, 0.999)


def test_links_equal_those_of_wikipedia2vec():
    """(title, surface) of what the reference makes of the pages, its categories dropped and our trails given to it."""
    dump_db = pytest.importorskip("wikipedia2vec.dump_db", reason="oracle: wikipedia2vec is not installed")
    from wikipedia2vec.utils.wiki_page import WikiPage

    ours, theirs = Counter(), Counter()
    for page in every_sixth_page():
        _, (_, packed) = dump_db._parse_page(WikiPage(page.title, "en", page.wikitext, None), None)
        for text, links, _ in pickle.loads(zlib.decompress(packed))[0]:
            for title, surface, _, end in links:
                title, surface = normalize_title(title), surface + re.match("[a-z]*", text[end:])[0]
                if title and surface and leads_to(title, "en") == ARTICLE:
                    theirs[title, " ".join(surface.split())] += 1
        for text, links, _ in parse(page.wikitext):
            ours.update((title, text[start:end]) for title, start, end in links)
    assert_nearly_equal(ours, theirs, 0.998)
