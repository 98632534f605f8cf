"""`cappy adapt`: from examples and an LLM behind an API to a scorer that picks its right answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from adapting import QUICK, answer, answering, examples, plan, right_answers, run, toy_scorer
from loopback import Reply

from cappy_select import InputError, Scorer
from cappy_select.adapt.config import AdaptConfig
from cappy_select.adapt.examples import deal, dealt
from cappy_select.adapt.folder import HELD_OUT, TRAIN
from cappy_select.adapt.outlook import outlook
from cappy_select.adapt.run import adapt
from cappy_select.data.instances import Instance
from cappy_select.data.store import SampleStore
from cappy_select.export import export_checkpoint


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A bundle of a scorer that knows nothing."""
    folder = tmp_path_factory.mktemp("toy")
    return export_checkpoint(toy_scorer(folder / "checkpoint"), folder / "bundle").path


def recorded(file, count=120, judged=True):
    """Recorded samples of the task, judged by a rule or not at all."""
    asked = right_answers(examples(file.with_suffix(".examples.jsonl"), count))
    rows = []
    for number, (prompt, right) in enumerate(asked.items()):
        given = [answer(asked, prompt, seed) for seed in range(4)]
        marks = [{"correct": text == right} if judged else {} for text in given]
        rows.append(
            {
                "id": str(number),
                "instruction": prompt,
                "candidates": [{"model": "m", "response": t} | mark for t, mark in zip(given, marks, strict=True)],
            }
        )
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


# ------------------------------------------------------------------------------------------------ the whole line


def test_an_llm_right_one_time_in_three_is_right_far_more_often_once_the_scorer_has_learnt_the_task(
    tmp_path, loopback, toy
):
    file = examples(tmp_path / "kinds.jsonl")
    answering(loopback, right_answers(file))
    out = tmp_path / "kinds"
    asked = (file, "-m", "openai/llm", "--api-base", loopback.base, "--plan", plan(tmp_path / "plan.json"))
    done = run(out, *asked, "--label", "exact", "--scorer", toy, "--held-out", "0.35", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    ways = {way["name"]: way for way in report["ways"]}
    assert ways["adapted"]["over_first"]["low"] > 0
    assert ways["adapted"]["over_base"]["low"] > 0
    assert ways["adapted"]["quality"] > ways["random"]["quality"] + 0.2
    assert ways["oracle"]["quality"] >= ways["adapted"]["quality"]
    # Each example was asked for each of its samples once, and the report is about what training never saw.
    assert len(loopback.requests) == 320 * 4
    trained = {row.instruction for row in dealt(out, TRAIN)}
    held_out = {row.instruction for row in dealt(out, HELD_OUT)}
    assert not trained & held_out
    assert report["n"] == len(held_out)
    # The bundle is the scorer that the report is about.
    scorer = Scorer.load(out / "bundle")
    rows = list(dealt(out, HELD_OUT))
    with SampleStore(out / "samples.db") as store:
        given = [[each.sample.response for each in store.samples(row)] for row in rows]
    picked = [
        texts[int(np.argmax(scorer.score(row.instruction, texts)))] for row, texts in zip(rows, given, strict=True)
    ]
    right = np.mean([text == row.references[0] for text, row in zip(picked, rows, strict=True)])
    assert right == pytest.approx(ways["adapted"]["quality"])
    for name in ("report.html", "report.md", "report.json", "ways.png"):
        assert (out / "report" / name).stat().st_size > 500
    # Run again it has nothing to do, and says the same.
    again = run(out, *asked, "--label", "exact", "--scorer", toy, "--held-out", "0.35", "--json")
    assert json.loads(again.stdout) == report
    assert len(loopback.requests) == 320 * 4


def test_recorded_samples_with_correctness_are_enough(tmp_path, toy):
    file = recorded(tmp_path / "recorded.jsonl", count=320)
    config = AdaptConfig(scorer=str(toy), settings=QUICK, held_out=0.3)
    done = adapt([], tmp_path / "out", config, recorded=[file])
    assert done.report is not None
    assert done.report.quality_by == "correct"
    assert done.report.quality("adapted") > done.report.quality("random") + 0.1
    manifest = json.loads((tmp_path / "out/pairs/manifest.json").read_text())
    assert set(manifest["rows"]["train"]["kinds"]) == {"labelled"}
    # A store of them does as well, and gives the same pairs.
    config = config.model_copy(update={"settings": (*QUICK[:1], "updates=2", *QUICK[2:])})
    adapt([], tmp_path / "other", config, recorded=[tmp_path / "out" / "samples.db"])
    other = json.loads((tmp_path / "other/pairs/manifest.json").read_text())
    assert [each["sha256"] for each in other["files"]] == [each["sha256"] for each in manifest["files"]]


def test_a_dry_run_says_calls_dollars_and_minutes_and_asks_and_writes_nothing(tmp_path, loopback, toy):
    file = examples(tmp_path / "kinds.jsonl", 50)
    done = run(
        tmp_path / "out", file, "-m", "openai/gpt-4o-mini", "--api-base", loopback.base, "-n", "3",
        "--max-tokens", "20", "--scorer", toy, "--dry-run", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["train"] + found["held_out"] == 50
    assert (found["calls"], found["models"][0]["samples"]) in {(50, 150), (150, 150)}
    assert 0 < found["cost"] < 0.1
    assert found["sampling_minutes"] > 0
    assert found["training_minutes"] > 0
    assert loopback.requests == []
    assert not (tmp_path / "out").exists()


def test_the_dry_run_counts_what_is_stored_already(tmp_path, toy):
    file = recorded(tmp_path / "recorded.jsonl", count=60)
    found = outlook([], tmp_path / "out", AdaptConfig(scorer=str(toy)), recorded=[file])
    assert (found.calls, found.cost) == (0, 0.0)
    assert found.pairs <= 60 * 4


def test_in_context_examples_come_from_the_training_side_and_the_scorer_never_reads_them(tmp_path, loopback, toy):
    file = examples(tmp_path / "kinds.jsonl", 60)
    answering(loopback, right_answers(file))
    config = AdaptConfig(
        models=("openai/llm",), icl=3, label="exact", scorer=str(toy), settings=("updates=2",),
        plan={"samplings": [{"n": 2, "seed": 1}]}, held_out=0.3,
    )  # fmt: skip
    adapt([file], tmp_path / "out", config, api_base=loopback.base)
    trained = {row.instruction for row in dealt(tmp_path / "out", TRAIN)}
    for request in loopback.requests:
        shown = [m["content"] for m in request["messages"] if m["role"] == "user"]
        assert len(shown) == 4
        assert set(shown[:-1]) <= trained
        assert shown[-1] not in shown[:-1]


# ----------------------------------------------------------------------------------------------------- the sides


def instance(number, **more):
    return Instance(**{"id": str(number), "task": "t", "instruction": f"q{number}", "references": ("a",)} | more)


def test_what_asks_the_same_or_is_of_the_same_group_is_on_one_side(tmp_path):
    rows = [instance(n, group=f"g{n // 3}") for n in range(60)]
    rows += [instance(100 + n, instruction=f"q{n}", group=f"h{n}") for n in range(20)]
    deal(rows, tmp_path, 0.3, seed=1)
    train, held_out = ([*dealt(tmp_path, side)] for side in (TRAIN, HELD_OUT))
    assert train
    assert held_out
    assert not {row.instruction for row in train} & {row.instruction for row in held_out}
    assert not {row.group for row in train} & {row.group for row in held_out}


def test_what_the_file_holds_out_is_held_out_and_nothing_else(tmp_path):
    rows = [instance(n, split="test" if n < 5 else "train") for n in range(40)]
    assert deal(rows, tmp_path, 0.5, seed=1) == (35, 5)
    assert [row.id for row in dealt(tmp_path, HELD_OUT)] == ["0", "1", "2", "3", "4"]


def test_a_side_without_examples_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"of 1 examples none is"):
        deal([instance(1)], tmp_path, 0.5, seed=1)


# ----------------------------------------------------------------------------------------------------- bad input


def test_another_adaptation_in_the_folder_is_an_error_that_names_the_difference(tmp_path, toy):
    file = recorded(tmp_path / "recorded.jsonl", count=40)
    config = AdaptConfig(scorer=str(toy), settings=("updates=1",))
    adapt([], tmp_path / "out", config, recorded=[file])
    with pytest.raises(InputError, match=r"another adaptation: epochs is 2.0 there and 3.0 here"):
        adapt([], tmp_path / "out", config.model_copy(update={"epochs": 3.0}), recorded=[file])
    recorded(file, count=41)
    with pytest.raises(InputError, match=r"another adaptation: recorded are others"):
        adapt([], tmp_path / "out", config, recorded=[file])


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, toy):
    (tmp_path / "thesis.txt").write_text("mine")
    file = recorded(tmp_path / "recorded.jsonl", count=20)
    with pytest.raises(InputError, match="not empty and holds no adaptation"):
        adapt([], tmp_path, AdaptConfig(scorer=str(toy)), recorded=[file])


def test_samples_that_nobody_judged_and_no_references_are_an_error(tmp_path, toy):
    file = recorded(tmp_path / "recorded.jsonl", count=30, judged=False)
    with pytest.raises(InputError, match="nothing says what is right"):
        adapt([], tmp_path / "out", AdaptConfig(scorer=str(toy)), recorded=[file])


def test_a_model_that_is_down_ends_with_3_and_the_same_command_goes_on(tmp_path, loopback, toy):
    file = examples(tmp_path / "kinds.jsonl", 40)
    loopback.replies["llm"] = [Reply(status=401, error="no such key")]
    asked = (file, "-m", "openai/llm", "--api-base", loopback.base, "--plan", plan(tmp_path / "plan.json", 2))
    more = ("--label", "exact", "--scorer", toy)
    stopped = run(tmp_path / "out", *asked, *more, settings=("updates=2",))
    assert stopped.returncode == 3
    assert "openai/llm: stopped" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    answering(loopback, right_answers(file))
    done = run(tmp_path / "out", *asked, *more, settings=("updates=2",))
    assert done.returncode == 0, done.stderr
    assert "the adapted scorer" in done.stdout


@pytest.mark.parametrize(
    ("files", "given", "message"),
    [
        ([], {}, "give a file of examples, or recorded samples"),
        (["nowhere.jsonl"], {"models": ("openai/llm",)}, "no such file"),
        (["kinds.jsonl"], {}, "give models to ask, or recorded samples"),
        (["kinds.jsonl"], {"models": ("openai/llm",), "settings": ("speed=9",)}, "speed"),
        (["kinds.jsonl"], {"models": ("openai/llm",), "label": "taste"}, "taste"),
    ],
)
def test_what_can_t_be_done_is_said_before_there_is_a_folder(tmp_path, monkeypatch, toy, files, given, message):
    monkeypatch.chdir(tmp_path)
    examples(tmp_path / "kinds.jsonl", 30)
    with pytest.raises(InputError, match=message):
        adapt(files, tmp_path / "out", AdaptConfig(scorer=str(toy), **given))
    assert not (tmp_path / "out").exists()


def test_a_bad_option_is_one_line(tmp_path):
    file = examples(tmp_path / "kinds.jsonl", 30)
    done = run(tmp_path / "out", file, "-m", "openai/llm", "--held-out", "1.5", settings=())
    assert done.returncode == 2
    assert "held_out" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
