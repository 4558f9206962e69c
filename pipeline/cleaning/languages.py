"""The languages that `cleaning.languages` may name: the labels of fastText's lid.176."""

from __future__ import annotations

# As https://fasttext.cc/docs/en/language-identification.html lists them: the model takes seconds.
_LABELS = """
    af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb
    co cs cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he
    hi hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez
    li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn
    no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco sd sh si sk sl so sq
    sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa war wuu xal xmf yi yo
    yue zh
"""
LANGUAGES = frozenset(_LABELS.split())
# Other codes of the most frequent ones: ISO 639-2, 639-3 and withdrawn ones of 639-1.
_OTHERS = """
    ara=ar arb=ar bul=bg ces=cs chi=zh cmn=zh cze=cs deu=de dut=nl ell=el eng=en est=et fas=fa
    fin=fi fra=fr fre=fr ger=de gre=el heb=he hin=hi hun=hu in=id ind=id ita=it iw=he jpn=ja kor=ko
    mal=ml mar=mr nb=no nld=nl nob=no per=fa pes=fa pol=pl por=pt ron=ro rum=ro rus=ru slk=sk spa=es
    swe=sv tur=tr ukr=uk vie=vi zho=zh
"""
_LABEL_OF = dict(pair.split("=") for pair in _OTHERS.split())


def meant(code: str) -> str:
    """What to write instead of a code that is no label: that of the same language, where known."""
    first = code.lower().replace("_", "-").partition("-")[0]
    known = first if first in LANGUAGES else _LABEL_OF.get(first)
    return f"did you mean {known!r}?" if known else "it takes ISO 639-1: en, de, zh, …"
