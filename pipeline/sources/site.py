"""What is known of a wiki: the names of its namespaces, and which links stand for no text.

A dump states its namespaces in its `<siteinfo>`, in the wiki's language; English names hold in
every wiki. It states neither aliases of names (`Bild:` for `Datei:`) nor the prefixes of links to
other wikis: a link to a media file is known by its extension, too, one to another language by its
code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from xml.etree.ElementTree import Element

ARTICLE, FILE, CATEGORY, MEDIA = 0, 6, 14, -2
_ENGLISH = {
    "media": MEDIA,
    "special": -1,
    "talk": 1,
    "user": 2,
    "user talk": 3,
    "project": 4,
    "project talk": 5,
    "file": FILE,
    "file talk": 7,
    "image": FILE,
    "image talk": 7,
    "mediawiki": 8,
    "mediawiki talk": 9,
    "template": 10,
    "template talk": 11,
    "help": 12,
    "help talk": 13,
    "category": CATEGORY,
    "category talk": 15,
}
# Codes of the languages that have, or had, a Wikipedia.
_CODES = """
    aa ab ace ady af ak als alt am ami an ang ann anp ar arc ary arz as ast atj av avk awa ay az azb
    ba ban bar bat-smg bbc bcl bdr be be-tarask be-x-old bew bg bh bi bjn blk bm bn bo bpy br bs btm
    bug bxr ca cbk-zam cdo ce ceb ch cho chr chy ckb co cr crh cs csb cu cv cy da dag de dga din diq
    dsb dtp dty dv dz ee el eml en eo es et eu ext fa fat ff fi fiu-vro fj fo fon fr frp frr fur fy
    ga gag gan gcr gd gl glk gn gom gor got gpe gsw gu guc gur guw gv ha hak haw he hi hif ho hr hsb
    ht hu hy hyw hz ia iba id ie ig igl ii ik ilo inh io is it iu ja jam jbo jv ka kaa kab kbd kbp
    kcg kg kge ki kj kk kl km kn knc ko koi kr krc ks ksh ku kus kv kw ky la lad lb lbe lez lfn lg
    li lij lld lmo ln lo lrc lt ltg lv lzh mad mai map-bms mdf mg mh mhr mi min mk ml mn mni mnw mo
    mos mr mrj ms mt mus mwl my myv mzn na nah nan nap nb nds nds-nl ne new ng nia nl nn no nov nqo
    nr nrm nso nup nv ny oc olo om or os pa pag pam pap pcd pcm pdc pfl pi pih pl pms pnb pnt ps pt
    pwn qu rm rmy rn ro roa-rup roa-tara rsk ru rue rup rw sa sah sat sc scn sco sd se sg sgs sh shi
    shn si simple sk skr sl sm smn sn so sq sr srn ss st stq su sv sw szl szy ta tay tcy tdd te tet
    tg th ti tig tk tl tly tn to tpi tr trv ts tt tum tw ty tyv udm ug uk ur uz ve vec vep vi vls vo
    vro wa war wo wuu xal xh xmf yi yo yue za zea zgh zh zh-classical zh-cn zh-min-nan zh-tw zh-yue
    zu
"""
_LANGUAGES = frozenset(_CODES.split())
_MEDIA_FILE = re.compile(
    r"\.(?:jpe?g|jpe|png|gif|svg|tiff?|webp|xcf|bmp|pdf|djvu?|og[gav]|opus|flac|wav|mp[34]|midi?|"
    r"webm|mpe?g|mov|stl)\s*$",
    re.IGNORECASE,
)


class Site(NamedTuple):
    """A wiki: numbers of its namespaces by name, and whether its dump marks redirects."""

    namespaces: Mapping[str, int]
    marks_redirects: bool

    def namespace(self, title: str) -> int:
        """Number of the namespace that a page's title names; 0, that of articles, if it doesn't."""
        prefix, colon, _ = title.partition(":")
        return self.namespaces.get(_folded(prefix), ARTICLE) if colon else ARTICLE

    def hides(self, target: str) -> bool:
        """Whether a link shows no text where it stands: media, categories, the page's translations.

        A title may hold a colon of its own ("CSI: Miami"). One that begins with a colon only points
        at the file or the category, and is text.
        """
        prefix, colon, rest = target.strip().partition(":")
        if not colon or not prefix:
            return False
        if self.namespaces.get(_folded(prefix)) in (FILE, CATEGORY, MEDIA):
            return True
        return (prefix in _LANGUAGES and not rest[:1].isspace()) or bool(_MEDIA_FILE.search(rest))


ENGLISH = Site(_ENGLISH, marks_redirects=False)


def site_of(version: str, siteinfo: Element | None) -> Site:
    """The wiki that a dump of a schema's version describes in its `siteinfo`.

    Versions before 0.3 name no namespaces; those before 0.4 mark no redirects.
    """
    names: dict[str, int] = {}
    for element in siteinfo.iter("namespace") if siteinfo is not None else ():
        key = element.get("key", "")
        if element.text and key.removeprefix("-").isdecimal():
            names[_folded(element.text)] = int(key)
    numbers = [int(part) for part in version.split(".") if part.isdecimal()]
    return Site({**_ENGLISH, **names}, marks_redirects=numbers >= [0, 4])


def _folded(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).casefold()
