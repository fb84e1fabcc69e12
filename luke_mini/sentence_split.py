"""Sentence spans by rules, for every language of mLUKE.

In: a text. Out: half-open character spans of its sentences, in order. White space between sentences belongs to none,
every other character to exactly one.

    split("Mr. Obama lives in the U.S. He was its president.")  ->  [(0, 27), (28, 49)]

A regular expression finds the stops, a few rules judge each. Stops of scripts without spaces (。！？) always end a
sentence; others do if white space follows, and then something that can begin a sentence. Is the word before a full stop
an abbreviation, an initial, an acronym or, in German and its like, an ordinal number, then the sentence goes on, unless
the next word is one that nearly always begins a sentence (The, Der, Il, ...). Thai has no stops: there, a space between
Thai letters ends a sentence that is long enough.

differs from LUKE: it uses OpenNLP's trained splitter for English and ICU's rules for the rest; both need Java or a C++
library. A wrong split costs little here: sentences are packed back into sequences, only links across a split are lost.
"""

import re

_FULL_STOPS = frozenset("。！？｡．")  # Chinese, Japanese: no space follows
_STOPS = ".!?…‽।॥؟۔։።၊။᙮᠃๚๛\n"  # ... Devanagari, Arabic, Armenian, Ethiopic, Burmese, Mongolian, Thai; end of line
_ANY_STOP = _STOPS + "".join(sorted(_FULL_STOPS))
_CLOSERS = r"[\"'”’»›«‹)\]}」』）】》〉]*(?:\s»(?=\s|$))?"  # quotes that close: German »Ja.«, French « Oui. »
# The set stands twice because `re` skips quickly to the first character of a pattern only if that is a plain set.
_CANDIDATE = re.compile(f"[{_ANY_STOP}][{_ANY_STOP}]*{_CLOSERS}")
_THAI_CANDIDATE = re.compile(f"{_CANDIDATE.pattern}|(?<=[\u0e00-\u0e7f]) (?=[\u0e00-\u0e7f])")
MIN_THAI_SENTENCE = 60  # characters; Thai writes spaces between clauses too

_NEXT_WORD = re.compile(r"[\s\"'“”„‘«»‹›(\[{「『（【《〈¿¡*–—-]*(\w*)(\.?)")
_LAST_WORD = re.compile(r"[^\s([{\"“”„«»‹›/–—]*$")
_ACRONYM = re.compile(r"[^\W\d_]|[^\W\d_]{1,3}(?:\.-?[^\W\d_]{1,3})+")  # no last stop: J  J.-P  U.S  z.B  Ph.D
_ORDINAL = re.compile(r"\d{1,2}|[IVX]+")
_ORDINAL_LANGUAGES = frozenset("cs da de et fi hr hu lv nb nn no pl sk sl sr tr".split())
LONGEST_ABBREVIATION = 12  # characters looked at before a full stop

# Without the last stop, as they are written within a sentence. Acronyms (e.g, z.B, t.ex) have their own rule.
_ABBREVIATIONS = {
    "en": "Mr Mrs Ms Messrs Dr Prof St Ste Mt Ft Gen Col Lt Sgt Capt Maj Cmdr Adm Rev Hon Gov Sen Rep Pres Fr Sr Jr"
    " Bros Inc Ltd Co Corp vs cf ca approx fig figs eq vol vols No Nos pp ch sec ed eds al est etc esp incl lit viz"
    " trans dept univ Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec",
    "de": "bzw ca Dr evtl geb gest ggf Hl Hrsg inkl Jh Jhd kgl lat max mind min Mio Mrd Nr Prof sog Str usw vgl bd Bd"
    " Abt Art griech engl franz ehem dt amtl eigtl urspr chr Chr",
    "fr": "MM Mme Mlle Mgr Dr Pr St Ste av apr env pp vol chap art fig éd ex cf no boul",
    "es": "Sr Sra Srta Dr Dra Dña Ud Uds Avda pág págs vol núm cap art ed fig gral ca",
    "it": "sig Sig dott Dott ing avv prof Prof pag pagg vol cap art ca ecc ed fig",
    "pt": "Sr Sra Dr Dra Prof Profa St av pág vol art ed ca",
    "nl": "dhr mevr mw dr drs ir ing prof St nr blz pag ca bijv bv ed resp jl Chr",
    "sv": "dr prof St nr ca kl fl Kr",
    "fi": "esim mm ks ns mr eaa jaa tri prof",
    "pl": "np ul tzw im św ks prof dr nr tj wg ok gen płk por zob",
    "ru": "гг др им см напр ул пр рис стр род акад проф св оз км млн млрд тыс лат англ",
    "tr": "dr prof doç Dr Prof Doç av vb yy bkz hz cad sok",
    "id": "dr prof Dr Prof Ir Drs Hj no No hlm jl Jl tgl",
    "vi": "Tp tp ts gs pgs ths tr TS GS",
    "sw": "Dkt Prof Bw Bi",
}
_ENGLISH = frozenset(_ABBREVIATIONS["en"].split())
_BY_LANGUAGE = {language: _ENGLISH | set(words.split()) for language, words in _ABBREVIATIONS.items()}
_STARTERS = frozenset(
    "The A An In On At It He She They We I This That These Those His Her Its Their But And As For From After Before"
    " When While Although However If There Some Many Most Der Die Das Ein Eine Er Sie Es Im Am Le La Les Il Elle Un Une"
    " El Los Las En Se De Het Een Den Det В На Он Она Это".split()
)


def _continues(word: str, language: str) -> bool:
    """Whether a full stop after this word usually does not end a sentence."""
    known = _BY_LANGUAGE.get(language, _ENGLISH)
    if word in known or word[:1].lower() + word[1:] in known and len(word) > 1:
        return True
    return bool(_ACRONYM.fullmatch(word) or language in _ORDINAL_LANGUAGES and _ORDINAL.fullmatch(word))


def _ends_sentence(text: str, stop: str, begin: int, end: int, language: str) -> bool:
    """Whether the candidate text[begin:end], a stop with the quotes that close after it, ends a sentence."""
    if end == len(text) or "\n" in stop or not _FULL_STOPS.isdisjoint(stop):
        return True
    if not text[end].isspace():
        return False  # 3.14, example.org
    following = _NEXT_WORD.match(text, end)
    if following[1][:1].islower() or not following[1][:1].isalnum():
        return following.end() == len(text)
    if stop != ".":
        return True
    word = _LAST_WORD.search(text, max(0, begin - LONGEST_ABBREVIATION), begin)[0].lstrip("'‘’")
    return not _continues(word, language) or following[1] in _STARTERS and not following[2]


def split(text: str, language: str = "en") -> list[tuple[int, int]]:
    """Half-open spans of the sentences of `text`. A language without abbreviations of its own gets the English ones."""
    spans: list[tuple[int, int]] = []
    start = 0

    def close(end: int) -> None:
        sentence = text[start:end].rstrip()
        if kept := sentence.lstrip():
            spans.append((start + len(sentence) - len(kept), start + len(sentence)))

    for match in (_THAI_CANDIDATE if language == "th" else _CANDIDATE).finditer(text):
        begin, end = match.span()
        stop = match[0]
        if stop == " ":
            ends = begin - start >= MIN_THAI_SENTENCE
        else:
            ends = _ends_sentence(text, stop, begin, end, language)
        if ends:
            close(end)
            start = end
    close(len(text))
    return spans
