"""`cappy eval ablation`: an adaptation as a whole, without pretraining, without the LLM's samples, and none."""

from __future__ import annotations

import json

import pytest
from adapting import QUICK, answer, instances, right_answers, toy_scorer

from cappy_select import InputError
from cappy_select.adapt.ablation import AblationReport, Variant, ablation
from cappy_select.adapt.config import AdaptConfig
from cappy_select.data.folder import read_manifest
from cappy_select.evaluate.intervals import Interval
from cappy_select.evaluate.report import markdown, write_report
from cappy_select.export import export_checkpoint


def answers(file, *, judged=False):
    """Recorded samples of the task, which somebody judged or nobody."""
    asked = right_answers(instances(file.with_suffix(".instances.jsonl"), 120))
    rows = [
        {
            "id": str(number),
            "instruction": prompt,
            "references": [right],
            "candidates": [
                {"model": "m", "response": said} | ({"correct": said == right} if judged else {})
                for said in (answer(asked, prompt, seed) for seed in range(4))
            ],
        }
        for number, (prompt, right) in enumerate(asked.items())
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.slow
def test_each_variant_lacks_what_its_name_says_and_is_compared_on_the_same_instances(tmp_path):
    toy = export_checkpoint(toy_scorer(tmp_path / "checkpoint"), tmp_path / "toy").path
    file = answers(tmp_path / "answers.jsonl", judged=True)  # of themselves, those would be trained on alone
    config = AdaptConfig(scorer=str(toy), label="exact", held_out=0.4, settings=(*QUICK[:1], "updates=12", *QUICK[2:]))
    found = ablation([], tmp_path / "out", config, recorded=[file])
    assert isinstance(found, AblationReport)
    quality = {each.name: each.quality for each in found.variants}
    assert set(quality) == {"full", "without_pretraining", "without_augmentation", "not_adapted"}
    assert 0 < found.random < found.oracle
    (full,) = (each for each in found.variants if each.name == "full")
    assert (full.over_full.low, full.over_full.high) == (0, 0)
    kinds = {
        name: set(read_manifest(tmp_path / "out" / name / "pairs")["rows"]["train"]["kinds"])
        for name in ("full", "without_augmentation")
    }
    assert kinds["without_augmentation"] == kinds["full"] - {"labelled"} != kinds["full"]
    runs = {
        name: json.loads((tmp_path / "out" / name / "training/run.json").read_text())["config"]["fresh"]
        for name in ("full", "without_pretraining", "without_augmentation")
    }
    assert runs == {"full": False, "without_pretraining": True, "without_augmentation": False}
    write_report(tmp_path / "report", found.report())
    assert (tmp_path / "report" / "ablation.png").stat().st_size > 5000
    assert "without the LLM's samples" in (tmp_path / "report" / "report.md").read_text()
    # Again it trains nothing, and finds the same.
    assert ablation([], tmp_path / "out", config, recorded=[file]) == found


def test_without_samples_there_is_nothing_to_compare(tmp_path):
    with pytest.raises(InputError, match="give recorded samples"):
        ablation([], tmp_path / "out", AdaptConfig(), recorded=[])


def rows_of(file, **more):
    """Judged samples of 20 questions."""
    rows = [
        {
            "id": str(number), "instruction": f"question {number}", "references": ["a"],
            "candidates": [{"model": "m", "response": text, "correct": text == "a"} for text in "ab"],
        } | more
        for number in range(20)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.slow
def test_what_the_last_training_would_lack_is_said_before_the_first(tmp_path):
    toy = export_checkpoint(toy_scorer(tmp_path / "checkpoint"), tmp_path / "toy").path
    config = AdaptConfig(scorer=str(toy), label="exact", held_out=0.4, settings=QUICK)
    file = rows_of(tmp_path / "rows.jsonl")
    with pytest.raises(InputError, match="no checkpoint at nowhere"):
        ablation([], tmp_path / "out", config, recorded=[file], encoder="nowhere")
    with pytest.raises(InputError, match="has references, and they are all that is trained on"):
        ablation([], tmp_path / "out", config, recorded=[rows_of(tmp_path / "bare.jsonl", references=[])])
    assert not (tmp_path / "out").exists()


def test_the_report_says_what_quality_is_by_and_what_was_trained_on():
    interval = Interval(mean=0.1, low=None, high=None)
    found = AblationReport(
        n=9, groups=3, quality_by="recorded", random=0.1, longest=0.2, oracle=0.9, encoder=None,
        variants=(Variant(name="full", quality=0.5, over_full=interval),),
    )  # fmt: skip
    text = markdown(found.report())
    assert "quality is by what was recorded of each answer" in text
    assert "had references and mismatches to train on" in text
    assert "as few as 3 instances" in text
