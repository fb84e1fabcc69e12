"""What the Wikipedias call things, language by language: which links lead to articles, which pages are disambiguations.

In:  the code of a wiki ("en", "de", "simple", ...). Out: small tables and compiled patterns for wikitext.py.

mLUKE's 24 languages; any other wiki is read with the English names, which MediaWiki understands everywhere. All names
are in lower case and come from the wikis themselves: namespaces, aliases, link trails and interwiki prefixes from
siteinfo, disambiguation templates from the page MediaWiki:Disambiguationspage and the templates' redirects.
Left out on purpose: local names of namespaces that hold neither articles, files nor categories. A link into one of
them is taken for a link to an article that does not exist, and so never becomes an entity.
"""

import re
from functools import lru_cache

# language: (files and media, categories, disambiguation templates as a regular expression); English holds everywhere.
_NAMES = {
    "en": (
        "file|image|media",
        "category",
        "(?:(?:airport|biology|call sign|caselaw|chemistry|chinese title|genus|hospital|human name|letter|"
        "letter-number combination|mathematical|military unit|molecular formula|music|number|opus number|phonetics|"
        "place name|portal|road|school|species latin name|species latin name abbreviation|station|synagogue|taxonomic "
        "authority|taxonomy|tla|wp) )?disambig(?:uation)?(?:(?: |-)cleanup| page)?|disamb|dab|(?:hn|geo|num|math|"
        "fish-)(?:dis|dab)(?:-cleanup)?|(?:number|road|school|hospital|callsign|station|mil-unit-|pow)dis|"
        "(?:latinname|molform|tla)disambig|disambig-chinese-char-title|letter-numbercombdisambig|cjkvdab",
    ),
    "ar": ("ملف|صورة|ميديا|وسائط", "تصنيف", "توضيح|صفحة توضيح|توضيح أسماء"),
    "bn": ("চিত্র|মিডিয়া", "বিষয়শ্রেণী", "দ্ব্যর্থতা নিরসন"),
    "de": ("datei|bild|medium", "kategorie", "begriffsklärung"),
    "el": ("αρχείο|εικόνα|μέσο|μέσον", "κατηγορία", "αποσαφήνιση|αποσαφ"),
    "es": ("archivo|imagen|medio", "categoría|cat", "desambiguación|desambig"),
    "fi": ("tiedosto|kuva", "luokka", "täsmennyssivu(?:/sukunimi)?"),
    "fr": (
        "fichier|média",
        "catégorie",
        "homonymie(?: .*)?|patronym(?:e|ie)(?: .*)?|toponymie|paronymie|(?:abbayes|arrondissements|batailles|cantons|"
        "cathédrales|communes françaises|églises|monastères|personnes|rues|saints|surnoms|titres|unités) homonymes",
    ),
    "hi": ("चित्र|मीडिया", "श्रेणी|श्र", "बहुविकल्पी शब्द|बहुविकल्पी|बहुवि"),
    "id": (
        "berkas|gambar",
        "kategori",
        "disambiguasi|disambig (?:nama|tempat|karya|kapal|sekolah|suku)(?: .*)?|disingkat",
    ),
    "it": ("immagine", "categoria|cat", "disambigua"),
    "ja": ("ファイル|画像|メディア", "カテゴリ", "aimai|(?:人名の|地名の)?曖昧さ回避"),
    "ko": ("파일|그림|미디어", "분류", "(?:분류 )?동음이의어?|동명이인"),
    "nl": ("bestand|afbeelding", "categorie", "dp|dp-?intro|doorverwijspagina"),
    "pl": ("plik|grafika", "kategoria", "ujednoznacznienie|strona ujednoznaczniająca"),
    "pt": ("ficheiro|arquivo|imagem|multimédia", "categoria", "!?desambiguação|desambig(?:-ini)?"),
    "ru": (
        "файл|изображение|медиа",
        "категория|к",
        "неоднозначность|многозначность|список (?:полных )?(?:однофамильцев|тёзок).*",
    ),
    "sv": (
        "fil|bild",
        "kategori",
        ".*förgrening|(?:förgrenings|gren)sida|gren|gaffel|flertydig|betydelselista|(?:för|efter|ort)namn|[34]l[ac]",
    ),
    "sw": ("picha|faili", "jamii", "maana"),
    "te": ("దస్త్రం|ఫైలు|బొమ్మ|మీడియా", "వర్గం", "(?:వివరమైన )?అయోమయ నివృత్తి"),
    "th": ("ไฟล์|ภาพ|สื่อ", "หมวดหมู่", "แก้ความกำกวม|แก้กำกวม|คำกำกวม"),
    "tr": ("dosya|resim|ortam|medya", "kategori|kat", "anlam ayrımı"),
    "vi": ("tập tin|hình|phương tiện", "thể loại", "(?:trang )?định hướng|dis"),
    "zh": (
        "文件|档案|檔案|图像|圖像|图片|圖片|媒体|媒體|媒体文件|媒體文件|媒体档案|媒體檔案",
        "分类|分類|cat",
        "消除?(?:歧[义義]|含糊)[页頁]?",
    ),
}

_OTHER_NAMESPACES = (
    "talk|user|user talk|wikipedia|wikipedia talk|project|project talk|wp|wt|file talk|image talk|mediawiki|mediawiki "
    "talk|template|template talk|help|help talk|category talk|portal|portal talk|draft|draft talk|module|module talk|"
    "special|timedtext|book|topic"
)

# Letters that, right after a link, belong to it: [[bus]]es. The Vietnamese list is French, also in MediaWiki.
_TRAILS = {
    "": "a-z",
    "ar": "a-zء-ي\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed",
    "bn": "\u0980-\u09ff",
    "de": "a-zäöüß",
    "el": "a-zαβγδεζηθικλμνξοπρστυφχψωςΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩάέήίόύώϊϋΐΰΆΈΉΊΌΎΏΪΫ",
    "es": "a-záéíóúñ",
    "fi": "a-zäö",
    "fr": "a-zàâçéèêîôûäëïöüùÇÉÂÊÎÔÛÄËÏÖÜÀÈÙ",
    "hi": "a-z\u0900-\u0963\u0966-\u097f\ua8e0-\ua8ff",
    "it": "a-zàéèíîìóòúù",
    "ja": "",
    "nl": "a-zäöüïëéèà",
    "pl": "a-zęóąśłżźćńĘÓĄŚŁŻŹĆŃ",
    "pt": "a-záâãàéêẽçíòóôõq\u0303úüűũ",
    "ru": "a-zа-яё",
    "sv": "a-zåäöéÅÄÖÉ",
    "te": "\u0c01-\u0c6f",
    "tr": "a-zÇĞçğİıÖöŞşÜüÂâÎîÛû",
    "vi": "a-zàâçéèêîôûäëïöüùÇÉÂÊÎÔÛÄËÏÖÜÀÈÙ",
    "zh": "",
}

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


# What a link leads to. PICTURE: pictures, other media and categories, which vanish. OTHER: sister projects, talk, ...
ARTICLE, PICTURE, LANGUAGE, OTHER = "article", "picture", "language", "other"


def _picture_names(language: str) -> list[str]:
    files, categories, _ = _NAMES.get(language, _NAMES["en"])
    return "|".join([*_NAMES["en"][:2], files, categories]).split("|")


@lru_cache
def _prefixes(language: str) -> dict[str, str]:
    prefixes = dict.fromkeys(_PROJECTS.split() + _OTHER_NAMESPACES.split("|"), OTHER)
    return prefixes | dict.fromkeys(_LANGUAGES.split(), LANGUAGE) | dict.fromkeys(_picture_names(language), PICTURE)


def leads_to(target: str, language: str) -> str:
    """What the target of a link leads to, as far as its prefix tells."""
    prefix, colon, _ = target.lstrip(": ").partition(":")
    kind = _prefixes(language).get(" ".join(prefix.replace("_", " ").lower().split()), ARTICLE) if colon else ARTICLE
    # [[:File:X]] is a link to the picture and not the picture.
    return OTHER if target[:1] == ":" and kind != ARTICLE else kind


@lru_cache
def pictures(language: str) -> re.Pattern:
    """Matches [[File:..]] and [[Category:..]], with at most links and single brackets in them."""
    names = "|".join(_picture_names(language)).replace(" ", "[ _]+")
    inside = r"[^\[\]]*+(?:(?:\[\[[^\[\]]*+\]\]|\[[^\[\]]*+\])[^\[\]]*+)*+"
    return re.compile(rf"\[\[[\s_]*(?:{names})[\s_]*:{inside}\]\]", re.IGNORECASE)


@lru_cache
def trail(language: str) -> re.Pattern:
    """Matches the letters that, right after a link, belong to it; in Japanese and Chinese none."""
    letters = _TRAILS.get(language, _TRAILS[""])
    return re.compile(f"[{letters}]+" if letters else "(?!)")


@lru_cache
def disambiguation(language: str) -> re.Pattern:
    """Finds a disambiguation template in wikitext."""
    names = "|".join([_NAMES["en"][2], _NAMES.get(language, _NAMES["en"])[2]])
    names = names.replace(".*", "[^{}|\n]*").replace(" ", "[ _]+")
    template = rf"\{{\{{[\s_]*(?:template:[\s_]*)?(?:{names})[\s_]*(?:\||\}}\}})"
    return re.compile(rf"{template}|__DISAMBIG__", re.IGNORECASE)
