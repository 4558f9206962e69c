import random
from pathlib import Path

import pytest

from pipeline.config import Decontamination
from pipeline.dedup.decontaminate import Index, build, contaminated_by, sentences
from pipeline.errors import PipelineError

GLUE = Path(__file__).parents[4] / "shared/data/glue"
RTE = "The council of the old town decided on Monday to close the northern bridge for repairs."
MRPC = "Analysts had expected the company to report a profit of twelve cents a share this quarter."
COLA = "It was the linguist whom nobody had thought that the committee would ever invite again."


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("glue")
    for task, content in {
        "RTE": f"index\tsentence1\tsentence2\tlabel\n0\t{RTE}\tA bridge.\tentailment\n",
        "MRPC": f"\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t2\t3\t{MRPC}\tShort.\n",
        "CoLA": f"gj04\t1\t\t{COLA}\n",
    }.items():
        (folder / task).mkdir()
        (folder / task / "dev.tsv").write_text(content)
    return build(Decontamination(paths=[f"{folder}/*/dev.tsv"]))


def _within(sentence: str) -> str:
    rng = random.Random(0)
    words = ["the", "of", "bridge", "company", "had", "share", "old", "town", "linguist", "a", "to"]
    filler = [" ".join(rng.choice(words) for _ in range(2000)) for _ in range(2)]
    return f"{filler[0]}. {sentence} {filler[1]}."


def test_verbatim_sentences_are_found_with_their_task(index: Index) -> None:
    for task, sentence in (("RTE", RTE), ("MRPC", MRPC), ("CoLA", COLA)):
        assert contaminated_by(_within(sentence), index, 4) == [task]
        assert contaminated_by(sentence.upper().replace(" ", ",  "), index, 4) == [task]
    assert contaminated_by(_within(f"{COLA} {RTE}"), index, 4) == ["CoLA", "RTE"]


def test_lightly_edited_sentences_are_found(index: Index) -> None:
    words = RTE.split()
    for at in range(len(words)):
        replaced = [*words[:at], "other", *words[at + 1 :]]
        dropped = [*words[:at], *words[at + 1 :]]
        added = [*words[:at], "indeed", *words[at:]]
        for edited in (replaced, dropped, added):
            assert contaminated_by(_within(" ".join(edited)), index, 4) == ["RTE"]


def test_other_texts_are_not(index: Index) -> None:
    assert contaminated_by(_within("Nothing of the kind."), index, 4) == []
    assert contaminated_by("", index, 4) == []
    repeated = (
        "The council council of the old town of the old town of the old town of the old town."
    )
    assert contaminated_by(repeated, index, 4) == []
    scattered = " and then a lot of other words came between them ".join(
        " ".join(RTE.split()[i : i + 4]) for i in range(0, 12, 4)
    )
    assert contaminated_by(scattered, index, 4) == []


# Of 13 words or more, where two characters of a script without blanks are one.
SCRIPTS = {
    "ru": "Совет старого города решил закрыть северный мост на ремонт до самого конца осени.",
    "hi": "पुराने शहर की परिषद ने सोमवार को उत्तरी पुल को मरम्मत के लिए पतझड़ तक बंद करने का फ़ैसला किया।",
    "ar": "قرر مجلس المدينة القديمة يوم الاثنين إغلاق الجسر الشمالي من أجل الإصلاح حتى الخريف.",
    "zh": "老城的市议会星期一决定关闭北边的大桥进行维修，直到今年秋天结束为止。",
    "ja": "旧市街の議会は月曜日に、北の橋を秋の終わりまで修理のために閉鎖することを決めた。",
    "th": "สภาเมืองเก่าตัดสินใจเมื่อวันจันทร์ให้ปิดสะพานทางเหนือเพื่อซ่อมแซมจนถึงปลายฤดูใบไม้ร่วง",
}
BEFORE = {
    "ru": "Стояла тихая погода. ",
    "hi": "मौसम शांत था। ",
    "ar": "كان الطقس هادئا. ",
    "zh": "那几天天气很好，没有风。",
    "ja": "その日は静かな天気だった。",
    "th": "วันนั้นอากาศเงียบสงบดี ",
}


@pytest.mark.parametrize("language", list(SCRIPTS))
def test_sentences_of_any_script_are_found(tmp_path: Path, language: str) -> None:
    sentence = SCRIPTS[language]
    (tmp_path / language).mkdir()
    (tmp_path / language / "dev.tsv").write_text(f"sentence\tlabel\n{sentence}\t1\n")
    index = build(Decontamination(paths=[f"{tmp_path}/*/dev.tsv"]))
    before = BEFORE[language] * 20
    assert contaminated_by(f"{before}{sentence}{before}", index, 4) == [language]
    half = len(sentence) // 2
    changed = f"{sentence[: half - 1]}—{sentence[half:]}"
    assert contaminated_by(f"{before}{changed}{before}", index, 4) == [language]
    assert contaminated_by(before + sentence[: len(sentence) // 4] + before, index, 4) == []


def test_paths_without_sentences_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("sentence\tlabel\nshort\t1\n")
    with pytest.raises(PipelineError, match="no sentence of 13 words"):
        build(Decontamination(paths=[str(tmp_path / "a.tsv")]))


@pytest.mark.skipif(not GLUE.exists(), reason="needs shared/data/glue beside the checkout")
def test_every_real_task_is_read_and_found_again() -> None:
    index = build(Decontamination(paths=[f"{GLUE}/*/dev*.tsv"]))
    assert len(index.tasks) == 8
    for task in ("CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "WNLI"):
        (file,) = (GLUE / task).glob("dev*.tsv")
        long = [s for s in sentences(str(file)) if len(s.split()) >= 20][:20]
        assert long, task
        found = [contaminated_by(f"Before it. {text} And behind.", index, 4) for text in long]
        assert sum(task in tasks for tasks in found) >= 19, task
