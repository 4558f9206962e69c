"""The record from planted results, its figures, verdicts and pictures; and from real runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reproduce.errors import ReproduceError
from reproduce.late_masking.collect import collect, read_csv, update, write_csv
from reproduce.late_masking.experiment import (
    Claim,
    Experiment,
    finetuning_settings,
    read_experiment,
    settings_of,
)
from reproduce.late_masking.jobs import ROOT
from reproduce.late_masking.record import Record
from reproduce.late_masking.report import write_report
from reproduce.late_masking.stages import Options, diagnose, pretrain, report, unrun_beside

PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")
FINDING = {
    "figure": "sparsity", "claim": "few zeros are best", "paper": "figure 1", "ours": "trec: 5 %",
    "setting": "a small encoder", "rule": "within a deviation", "verdict": "undecided",
}  # fmt: skip


def plant(results: Path, experiment: Experiment) -> None:
    """Vanilla ends at 5.0 + seed / 10 after an hour; the paper's is 0.15 better throughout."""
    results.mkdir()
    curves = [
        {"variant": variant, "seed": seed, "step": step, "tokens": 1e6 * step * more,
         "flops": 1e9 * step, "hours": 0.5 * step * time,
         "loss": 6.0 - step / 2 + seed / 10 + shift, "accuracy": 0.25}
        for variant, shift, time, more in (
            ("vanilla_15", 0.0, 1.0, 1.0), ("paper_78", -0.15, 0.4, 1.2)
        )
        for seed in (1, 2, 3)
        for step in (1, 2)
    ]  # fmt: skip
    write_csv(results / "curves.csv", curves)
    lines = [{"name": "unigram", "loss": 6.1}, {"name": "bigram", "loss": 5.25}]
    write_csv(results / "lines.csv", lines)
    peers = [
        {
            "variant": "huggingface_ours",
            "seed": seed,
            "step": 2,
            "tokens": 2000.0,
            "hours": 3.0,
            "loss": 5.0,
        }
        for seed in (1, 2, 3)
    ]
    write_csv(results / "peer.csv", peers)
    scores = [
        {"variant": variant, "seed": seed, "task": task, "metric": "accuracy",
         "finetuning_seed": again,
         "value": value + seed / 100 + again / 1000, "settings": finetuning_settings(experiment)}
        for variant, gain in (("vanilla_15", 0.0), ("paper_78", 0.02))
        for seed in (1, 2, 3)
        for task, value in (("trec", 0.7 + gain), ("rte", 0.5 + gain))
        for again in (-1, 0, 1)
    ]  # fmt: skip
    write_csv(results / "downstream.csv", scores)
    runs = [
        {
            "variant": variant,
            "seed": seed,
            "machine": "one",
            "settings": settings_of(experiment, variant),
        }
        for variant in ("vanilla_15", "paper_78", "huggingface_ours")
        for seed in (1, 2, 3)
    ]
    write_csv(results / "runs.csv", runs)
    write_csv(results / "trials.csv", [{"size": "4 x 128", "loss": 5.5}])
    (results / "notes.txt").write_text("**A smaller one**: 5.6.\n", encoding="utf-8")
    (results / "weight_masks").mkdir()
    (results / "weight_masks" / "sparsity.json").write_text(json.dumps(FINDING))
    (results / "weight_masks" / "sparsity.png").write_bytes(b"\x89PNG")


@pytest.fixture
def page(experiment: Experiment, tmp_path: Path) -> Path:
    def claim(measure: str, limit: float, text: str) -> Claim:
        return Claim(text=text, paper="p", variant="paper_78", baseline="vanilla_15",
                     measure=measure, limit=limit)  # type: ignore[arg-type]  # fmt: skip

    claims = [
        claim("loss", 0.0, "better loss"),
        claim("score", 1.0, "better score"),
        replace(claim("score", 1.0, "better at trec"), tasks=["trec"]),
        claim("hours", 0.5, "half the time"),
        claim("hours", 0.1, "a tenth of the time"),
        replace(claim("loss", 0.0, "never run"), variant="vanilla_40"),
    ]
    plant(tmp_path / "record", experiment)
    other = replace(experiment, size="a large one", not_run="takes a cluster")
    record = tmp_path / "record.md"
    write_report(replace(experiment, claims=claims), [other], record.with_suffix(""), record)
    return record


def row(text: str, beginning: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {beginning} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_claims_have_their_verdicts(page: Path) -> None:
    text = page.read_text()
    better = row(text, "better loss")
    assert better[2] == "5.050 ± 0.100 against 5.200 ± 0.100: -0.150 [-0.150, -0.150] nats"
    assert better[4] == "agrees"
    # Scores are points of 100: the variant's are higher by 2.
    assert ": +2.000 [+2.000, +2.000] points" in row(text, "better score")[2]
    assert row(text, "better score")[4] == "agrees"
    assert row(text, "better at trec")[2].startswith("74.0 ± 1.0 against 72.0 ± 1.0")
    # Each seed gets to vanilla's last loss after 0.34 of its hour.
    assert ": 0.340 [0.340, 0.340] of the time" in row(text, "half the time")[2]
    assert row(text, "half the time")[4] == "agrees"
    assert row(text, "a tenth of the time")[4] == "disagrees"
    assert row(text, "never run")[2:] == ["not run yet", "at most 0 nats higher", ""]


def test_all_that_was_found_is_in_it(page: Path) -> None:
    text = page.read_text()
    variant = row(text, "k = L, d = 2, 50 %: the paper's recipe")
    assert variant[2:5] == ["3", "5.050 ± 0.100", "-0.150 [-0.150, -0.150]"]
    # 1.2 million tokens an evaluation; 0.4, 0.6 and 0.8 of the second are needed.
    assert variant[7] == "1.92"
    assert variant[8] == f"{1 / 1.2:.3f}"  # FLOPs a token
    assert row(text, "vanilla, 15 %")[7] == "not all seeds"  # one ends at 5.3
    assert row(text, "sparsity")[5] == "undecided"
    assert "Not drawn yet: layers, memory, tsne," in text
    assert "takes a cluster" in text
    assert "5.250 nats" in text
    assert row(text, "4 x 128") == ["4 x 128", "5.5"]
    assert "### Other small runs\n\n**A smaller one**: 5.6.\n\n### Not run" in text
    assert "13.2 hours of pretraining" in text  # 3 of 1 hour, 3 of 0.4, 3 of 3
    # By rank, losses (5.2, 5.3, 5.4 vanilla; 0.15 less the paper's) and scores (61, 62, 63; +2).
    assert "Spearman's rank correlation -0.12 over 6 runs" in text
    pictures = PICTURE.findall(text)
    assert len(pictures) == 5  # curves, variants, the peer, scores over losses, the finding
    for name in pictures:
        assert (page.parent / name).is_file()


def change(file: Path, change: Callable[[dict], dict]) -> None:
    write_csv(file, [change(found) for found in read_csv(file)])


def test_a_record_with_the_former_name_of_a_column_is_read(page: Path) -> None:
    new = page.with_suffix("") / "curves.csv"
    before = read_csv(new)
    new.write_text(new.read_text().replace("variant,", "arm,", 1))
    assert read_csv(new) == before


def test_times_compare_on_one_machine_only(experiment: Experiment, tmp_path: Path) -> None:
    results = tmp_path / "record"
    plant(results, experiment)
    elsewhere = {("paper_78", 3), ("huggingface_ours", 2)}
    change(
        results / "runs.csv",
        lambda r: r | ({"machine": "two"} if (r["variant"], r["seed"]) in elsewhere else {}),
    )
    # Ten times as slow a machine changes nothing.
    change(
        results / "curves.csv",
        lambda r: (
            r | ({"hours": 10 * r["hours"]} if (r["variant"], r["seed"]) in elsewhere else {})
        ),
    )
    record = Record(experiment, results)
    assert record.runs_by_machine() == [("one", 7), ("two", 2)]
    half = record.time_ratio("paper_78", "vanilla_15")
    assert half is not None
    assert (half.n, half.mean) == (2, pytest.approx(0.34))
    peer = record.time_ratio("vanilla_15", "huggingface_ours")
    assert peer is not None
    assert peer.n == 2
    # It gets there after 1.7 steps of as many FLOPs as vanilla's 2, on any machine.
    flops = record.share_of_flops("paper_78")
    assert flops is not None
    assert (flops.n, flops.mean) == (3, pytest.approx(0.85))
    assert record.share_of_flops("huggingface_ours") is None
    assert record.last("paper_78", "loss").keys() == {1, 2, 3}
    write_report(experiment, [], results, tmp_path / "record.md")
    page = (tmp_path / "record.md").read_text()
    assert "one (7); two (2)" in page
    paper = row(page, "k = L, d = 2, 50 %: the paper's recipe")
    assert (paper[2], paper[9]) == ("3", "24.0")


def test_a_claim_of_times_on_two_machines_says_that_none_compare(
    experiment: Experiment, tmp_path: Path
) -> None:
    results = tmp_path / "record"
    plant(results, experiment)
    change(
        results / "runs.csv",
        lambda r: r | ({"machine": "two"} if r["variant"] == "paper_78" else {}),
    )
    claim = Claim(text="half the time", paper="p", variant="paper_78", baseline="vanilla_15",
                  measure="hours", limit=0.5)  # fmt: skip
    write_report(replace(experiment, claims=[claim]), [], results, tmp_path / "record.md")
    page = (tmp_path / "record.md").read_text()
    assert row(page, "half the time")[2] == "no times on one machine"
    # What never gets there takes longer on any machine.
    change(
        results / "curves.csv",
        lambda r: r | ({"loss": r["loss"] + 0.3} if r["variant"] == "paper_78" else {}),
    )
    write_report(replace(experiment, claims=[claim]), [], results, tmp_path / "record.md")
    found = row((tmp_path / "record.md").read_text(), "half the time")
    assert found[2].startswith("never (0 of 3 seeds get there) against 60.0 ± 0.0 min")
    assert found[4] == "disagrees"


@pytest.mark.parametrize("changed", ["recipe", "shared", "finetuning"])
def test_results_of_other_settings_are_left_out(
    changed: str, experiment: Experiment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    results = tmp_path / "record"
    plant(results, experiment)
    now = experiment
    if changed == "recipe":
        variant = replace(experiment.variants["paper_78"], masking={"depth": 0.5}, title="same")
        now = replace(experiment, variants=experiment.variants | {"paper_78": variant})
    elif changed == "shared":
        now = replace(experiment, pretrain=experiment.pretrain | {"optimizer": {"lr": 1.0}})
    else:
        glue = experiment.downstream.glue | {"learning_rate": 1.0}
        now = replace(experiment, downstream=replace(experiment.downstream, glue=glue))
    record = Record(now, results)
    variants = {"recipe": ["vanilla_15", "huggingface_ours"], "shared": []}
    everything = ["vanilla_15", "paper_78", "huggingface_ours"]
    assert list(record.curves) == variants.get(changed, everything)
    assert list(record.scores) == {"recipe": ["vanilla_15"]}.get(changed, [])
    assert ("curves.csv" in caplog.text) == (changed != "finetuning")


def test_finetuning_may_grow_by_seeds(experiment: Experiment, tmp_path: Path) -> None:
    results = tmp_path / "record"
    plant(results, experiment)
    glue = experiment.downstream.glue | {"seed": [1, 2, 3, 4]}
    record = Record(
        replace(experiment, downstream=replace(experiment.downstream, glue=glue)), results
    )
    # Each planted three times around its mean; one run was finetuned once more.
    assert record.scores["vanilla_15"][2] == pytest.approx({"trec": 72, "rte": 52})
    assert record.finetunings("vanilla_15") == 3
    rows = read_csv(results / "downstream.csv")
    write_csv(results / "downstream.csv", [*rows, rows[0] | {"finetuning_seed": 4, "value": 0.31}])
    record = Record(record.experiment, results)
    assert record.scores["vanilla_15"][1] == pytest.approx({"trec": (3 * 71 + 31) / 4, "rte": 51})
    assert record.finetunings("vanilla_15") == 3
    assert record.finetunings("vanilla_50") == 0


def test_a_place_with_fewer_seeds_of_finetuning_takes_none_away(tmp_path: Path) -> None:
    file = tmp_path / "downstream.csv"
    rows = [
        {"variant": "late", "seed": 1, "task": "pos", "finetuning_seed": again, "value": 0.5}
        for again in (1, 2)
    ]
    write_csv(file, rows)
    update(file, [rows[0] | {"value": 0.6}], ["late"], ("task", "finetuning_seed"))
    assert read_csv(file) == [rows[0] | {"value": 0.6}, rows[1]]


def test_a_title_is_no_setting(experiment: Experiment) -> None:
    variant = replace(experiment.variants["paper_78"], title="another")
    renamed = replace(experiment, variants=experiment.variants | {"paper_78": variant})
    assert settings_of(renamed, "paper_78") == settings_of(experiment, "paper_78")


def test_a_run_of_other_settings_is_neither_kept_nor_collected(pretrained: Options) -> None:
    variant = replace(pretrained.experiment.variants["paper_78"], compute=0.5)
    variants = pretrained.experiment.variants | {"paper_78": variant}
    changed = replace(pretrained, experiment=replace(pretrained.experiment, variants=variants))
    for stage in (pretrain, report):
        with pytest.raises(ReproduceError, match=r"paper_78/seed-1: made with .*: budget\); move"):
            stage(changed)


def test_no_results_make_a_page_that_says_so(experiment: Experiment, tmp_path: Path) -> None:
    (tmp_path / "record").mkdir()
    write_report(experiment, [], tmp_path / "record", tmp_path / "record.md")
    text = (tmp_path / "record.md").read_text()
    assert text.count("not run yet") == len(experiment.claims)
    assert not PICTURE.findall(text)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("reproduction", "docs/reproduction/experiment.yaml"),
        ("recipe", "configs/reproduce/late_masking_recipe.yaml"),
    ],
)
def test_the_checked_in_record_is_made_from_the_checked_in_results(
    name: str, config: str, tmp_path: Path
) -> None:
    checked_in = ROOT / "docs" / f"{name}.md"
    shutil.copytree(checked_in.with_suffix(""), tmp_path / name)
    experiment = read_experiment(ROOT / config)
    page = tmp_path / f"{name}.md"
    write_report(experiment, unrun_beside(experiment), page.with_suffix(""), page)
    assert page.read_text() == checked_in.read_text()
    record = Record(experiment, page.with_suffix(""))
    runs = read_csv(page.with_suffix("") / "runs.csv")
    assert len(record.machines) == len(runs), "made with settings that have changed since"


def test_from_runs_to_the_record(pretrained: Options) -> None:
    report(replace(pretrained, experiment=replace(pretrained.experiment, diagnose=[])))
    curves = read_csv(pretrained.results / "curves.csv")
    assert {(r["variant"], r["seed"]) for r in curves} == {("vanilla_15", 1), ("paper_78", 1)}
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    made_with = {r["commit"] for r in read_csv(pretrained.results / "runs.csv")}
    assert made_with == {f"git:{commit[:10]}" if commit else ""}
    last = {r["variant"]: r for r in curves}
    budget = 0.78 * last["vanilla_15"]["flops"]
    assert last["paper_78"]["flops"] == pytest.approx(budget, rel=0.06)  # whole steps
    diagnose(pretrained)
    report(pretrained)
    text = pretrained.page.read_text()
    assert "in RoBERTa-base 6.6%" in text
    for name in PICTURE.findall(text):
        assert (pretrained.page.parent / name).is_file()
    assert f"{pretrained.results.name}/layers.png" in text
    # Collecting again changes nothing.
    before = (pretrained.results / "curves.csv").read_bytes()
    collect(pretrained.experiment, pretrained.output_dir, pretrained.results)
    assert (pretrained.results / "curves.csv").read_bytes() == before
    # Results that came from elsewhere stay; what was found here comes over older rows.
    change(pretrained.results / "curves.csv", lambda r: r | {"loss": 9.0})
    other = [{**curves[0], "seed": 2}, {**curves[0], "variant": "vanilla_40"}]
    write_csv(
        pretrained.results / "curves.csv", [*other, *read_csv(pretrained.results / "curves.csv")]
    )
    collect(pretrained.experiment, pretrained.output_dir, pretrained.results)
    ours = [r for r in curves if r["variant"] == "vanilla_15"]
    theirs = [r for r in curves if r["variant"] == "paper_78"]
    merged = read_csv(pretrained.results / "curves.csv")
    assert merged == [*ours, other[0], *theirs, other[1]]
