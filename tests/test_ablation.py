"""`cappy eval ablation`: an adaptation as a whole, without pretraining, without the LLM's samples, and none."""

from __future__ import annotations

import json

import pytest
from adapting import QUICK, answer, examples, right_answers, toy_scorer

from cappy_select import InputError
from cappy_select.adapt.ablation import AblationReport, ablation
from cappy_select.adapt.config import AdaptConfig
from cappy_select.data.folder import read_manifest
from cappy_select.evaluate.report import write_report
from cappy_select.export import export_checkpoint


def answers(file):
    """Recorded samples of the task, which nobody judged."""
    asked = right_answers(examples(file.with_suffix(".examples.jsonl"), 120))
    rows = [
        {
            "id": str(number),
            "instruction": prompt,
            "references": [right],
            "candidates": [{"model": "m", "response": answer(asked, prompt, seed)} for seed in range(4)],
        }
        for number, (prompt, right) in enumerate(asked.items())
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.slow
def test_each_variant_lacks_what_its_name_says_and_is_compared_on_the_same_examples(tmp_path):
    toy = export_checkpoint(toy_scorer(tmp_path / "checkpoint"), tmp_path / "toy").path
    file = answers(tmp_path / "answers.jsonl")
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
    assert kinds["full"] - kinds["without_augmentation"] == {"augmented"}
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
