"""`cappy adapt`: from instances and an LLM behind an API to a scorer that picks its right answers."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from adapting import QUICK, answer, answering, instances, plan, right_answers, run, toy_scorer
from loopback import Reply

from cappy_select import InputError, Scorer
from cappy_select.adapt.config import AdaptConfig
from cappy_select.adapt.estimate import estimate
from cappy_select.adapt.folder import HELD_OUT, TRAIN
from cappy_select.adapt.run import adapt
from cappy_select.adapt.split import of_side, split
from cappy_select.data.bulk import Limits
from cappy_select.data.instances import Instance
from cappy_select.data.pairs import folded
from cappy_select.data.store import SampleStore
from cappy_select.export import export_checkpoint


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-1234")


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A bundle of a scorer that knows nothing."""
    folder = tmp_path_factory.mktemp("toy")
    return export_checkpoint(toy_scorer(folder / "checkpoint"), folder / "bundle").path


SEEDED = {"samplings": [{"n": 2, "seed": 1}]}


def recorded(file, count=120, judged=True):
    """Recorded samples of the task, judged by a rule or not at all."""
    asked = right_answers(instances(file.with_suffix(".instances.jsonl"), count))
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
    file = instances(tmp_path / "kinds.jsonl")
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
    # Each instance was asked for each of its samples once, and the report is about what training never saw.
    assert len(loopback.requests) == 320 * 4
    trained = {row.instruction for row in of_side(out, TRAIN)}
    held_out = {row.instruction for row in of_side(out, HELD_OUT)}
    assert not trained & held_out
    assert report["n"] == len(held_out)
    # The bundle is the scorer that the report is about.
    scorer = Scorer.load(out / "bundle")
    rows = list(of_side(out, HELD_OUT))
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


@pytest.mark.slow
def test_a_scorer_learns_from_recorded_samples_with_correctness(tmp_path, toy):
    file = recorded(tmp_path / "recorded.jsonl", count=320)
    config = AdaptConfig(scorer=str(toy), settings=QUICK, held_out=0.3)
    report = adapt([], tmp_path / "out", config, recorded=[file]).report
    assert report.quality("adapted") > report.quality("random") + 0.1


def test_recorded_samples_with_correctness_are_enough(tmp_path, toy):
    file = recorded(tmp_path / "recorded.jsonl", count=320)
    config = AdaptConfig(scorer=str(toy), settings=(*QUICK[:1], "updates=2", *QUICK[2:]), held_out=0.3)
    done = adapt([], tmp_path / "out", config, recorded=[file])
    assert done.report is not None
    assert done.report.quality_by == "recorded"
    manifest = json.loads((tmp_path / "out/pairs/manifest.json").read_text())
    assert set(manifest["rows"]["train"]["kinds"]) == {"labelled"}
    # A store of them does as well, and gives the same pairs.
    adapt([], tmp_path / "other", config, recorded=[tmp_path / "out" / "samples.db"])
    other = json.loads((tmp_path / "other/pairs/manifest.json").read_text())
    assert [each["sha256"] for each in other["files"]] == [each["sha256"] for each in manifest["files"]]


def test_a_dry_run_says_calls_dollars_and_minutes_and_asks_and_writes_nothing(tmp_path, loopback, toy):
    file = instances(tmp_path / "kinds.jsonl", 50)
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


def test_the_dry_run_counts_what_is_stored_already_and_what_the_settings_make_longer(tmp_path, loopback, toy):
    file = instances(tmp_path / "kinds.jsonl", 40)
    answering(loopback, right_answers(file))
    given = {"models": ("openai/llm",), "plan": SEEDED, "label": "exact", "scorer": str(toy)}
    before = estimate([file], tmp_path / "out", AdaptConfig(**given), api_base=loopback.base)
    assert before.models[0].samples == 80
    answer_one = loopback.reply_to

    def half(request):
        return answer_one(request) if request["seed"] == 1 else Reply(status=503, error="busy")

    loopback.reply_to = half
    limits = Limits(max_retries=0)
    stopped = adapt([file], tmp_path / "out", AdaptConfig(**given), api_base=loopback.base, limits=limits)
    assert stopped.report is None
    assert "openai/llm" in stopped.stopped
    after = estimate([file], tmp_path / "out", AdaptConfig(**given), api_base=loopback.base)
    assert (after.models[0].stored, after.models[0].samples) == (40, 40)
    longer = estimate(
        [file], tmp_path / "out", AdaptConfig(**given, settings=("updates=5000",)), api_base=loopback.base
    )
    assert (longer.updates, after.updates) == (5000, 40)
    rest = 1.0  # minutes of all else
    assert longer.training_minutes - rest > 50 * (after.training_minutes - rest)  # 125, as far as both are measured


def test_in_context_examples_come_from_the_training_side_and_are_no_part_of_the_pairs(tmp_path, loopback, toy):
    file = instances(tmp_path / "kinds.jsonl", 60)
    answering(loopback, right_answers(file))
    config = AdaptConfig(
        models=("openai/llm",), icl=3, label="exact", scorer=str(toy), settings=("updates=2",),
        plan=SEEDED, held_out=0.3,
    )  # fmt: skip
    adapt([file], tmp_path / "out", config, api_base=loopback.base)
    trained = {row.instruction for row in of_side(tmp_path / "out", TRAIN)}
    for request in loopback.requests:
        shown = [m["content"] for m in request["messages"] if m["role"] == "user"]
        assert len(shown) == 4
        assert set(shown[:-1]) <= trained
        assert shown[-1] not in shown[:-1]
    pairs = pq.read_table(tmp_path / "out/pairs/train-00000-of-00001.parquet")
    assert set(pairs.column("instruction").to_pylist()) <= trained
    assert "augmented" in pairs.column("kind").to_pylist()


def test_answers_in_the_instances_file_s_order_of_models_and_without_a_task_are_found(tmp_path, toy):
    """Two models, samples of a file of another name; what is not of an instance here does not count."""
    file = instances(tmp_path / "kinds.jsonl", 80)
    right = right_answers(file)
    rows = [
        {
            "id": json.loads(line)["id"], "instruction": json.loads(line)["instruction"],
            "candidates": [
                {"model": "z", "response": right[json.loads(line)["instruction"]]},
                {"model": "a", "response": "nothing"},
            ],
        }
        for line in file.read_text().splitlines()
    ]  # fmt: skip
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = AdaptConfig(scorer=str(toy), settings=("updates=2",), label="exact")
    report = adapt([file], tmp_path / "out", config, recorded=[answers]).report
    assert report.quality("first") == 1.0
    assert report.quality("random") == 0.5
    assert report.best_model == "z"
    assert report.quality_by == "exact"
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(rows[0] | {"id": "nobody"}) + "\n")
    with pytest.raises(InputError, match=r"none of the recorded samples is of one"):
        adapt([file], tmp_path / "another", config, recorded=[other])


def test_the_splits_and_groups_of_recorded_samples_are_kept(tmp_path, toy):
    lines = recorded(tmp_path / "recorded.jsonl", count=40).read_text().splitlines()
    rows = [
        json.loads(line) | {"group": f"g{n // 4}"} | ({"split": "test"} if n < 8 else {})
        for n, line in enumerate(lines)
    ]
    file = tmp_path / "told.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    adapt([], tmp_path / "out", AdaptConfig(scorer=str(toy), settings=("updates=1",)), recorded=[file])
    assert [row.id for row in of_side(tmp_path / "out", HELD_OUT)] == [str(n) for n in range(8)]
    assert {row.group for row in of_side(tmp_path / "out", TRAIN)} == {f"g{n}" for n in range(2, 10)}


# ----------------------------------------------------------------------------------------------------- the sides


def instance(number, **more):
    return Instance(**{"id": str(number), "task": "t", "instruction": f"q{number}", "references": ("a",)} | more)


def test_what_asks_the_same_or_is_of_the_same_group_is_on_one_side(tmp_path):
    rows = [instance(n, group=f"g{n // 3}") for n in range(60)]
    rows += [instance(100 + n, instruction=f"q{n}", group=f"h{n}") for n in range(20)]
    rows += [instance(200 + n, instruction=f" Q{n} ") for n in range(20)]
    split([*rows, *rows], tmp_path, 0.3, seed=1)
    train, held_out = ([*of_side(tmp_path, side)] for side in (TRAIN, HELD_OUT))
    assert train
    assert held_out
    assert not {folded(row.instruction) for row in train} & {folded(row.instruction) for row in held_out}
    assert len({row.id for row in train}) == len(train)
    assert not {row.group for row in train} & {row.group for row in held_out} - {None}


def test_what_the_file_holds_out_is_held_out_and_nothing_else(tmp_path):
    rows = [instance(n, split="test" if n < 5 else "train") for n in range(40)]
    assert split(rows, tmp_path, 0.5, seed=1) == (35, 5)
    assert [row.id for row in of_side(tmp_path, HELD_OUT)] == ["0", "1", "2", "3", "4"]


def test_a_side_without_instances_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"of 1 instances none is"):
        split([instance(1)], tmp_path, 0.5, seed=1)


# ----------------------------------------------------------------------------------------------------- bad input


def test_another_adaptation_in_the_folder_is_an_error_that_names_the_difference(tmp_path, toy):
    file = recorded(tmp_path / "recorded.jsonl", count=40)
    config = AdaptConfig(scorer=str(toy), settings=("updates=1",))
    adapt([], tmp_path / "out", config, recorded=[file])
    with pytest.raises(InputError, match=r"another adaptation: epochs is 1.0 there and 3.0 here"):
        adapt([], tmp_path / "out", config.model_copy(update={"epochs": 3.0}), recorded=[file])
    recorded(file, count=41)
    with pytest.raises(InputError, match=r"another adaptation: recorded are others; .*--recorded"):
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


def test_a_label_that_can_t_read_the_references_is_said_before_anybody_is_asked(tmp_path, loopback, toy):
    rows = [{"id": str(n), "instruction": f"q{n}", "references": ["да"]} for n in range(20)]
    file = tmp_path / "cyrillic.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = AdaptConfig(models=("openai/llm",), scorer=str(toy))
    with pytest.raises(InputError, match="rouge_l_unicode or exact"):
        adapt([file], tmp_path / "out", config, api_base=loopback.base)
    assert loopback.requests == []


def test_instances_that_say_nothing_of_right_and_wrong_are_asked_about_never(tmp_path, loopback, toy):
    file = tmp_path / "bare.jsonl"
    file.write_text(
        "".join(json.dumps({"id": str(n), "instruction": f"q{n}", "references": []}) + "\n" for n in range(20))
    )
    config = AdaptConfig(models=("openai/llm",), scorer=str(toy))
    with pytest.raises(InputError, match="nothing says what is right"):
        adapt([file], tmp_path / "out", config, api_base=loopback.base)
    assert loopback.requests == []


def test_calls_refused_for_good_leave_nothing_decided(tmp_path, loopback, toy):
    file = instances(tmp_path / "kinds.jsonl", 12)
    loopback.replies["llm"] = [Reply(status=400, error="no")]
    config = AdaptConfig(models=("openai/llm",), plan=SEEDED, label="exact", scorer=str(toy), held_out=0.4)
    with pytest.raises(InputError, match=r"none of the \d+ instances of \w+.jsonl has an answer"):
        adapt([file], tmp_path / "out", config, api_base=loopback.base)
    assert not (tmp_path / "out" / "pairs").exists()


def test_partial_goes_on_with_the_samples_there_are(tmp_path, loopback, toy):
    file = instances(tmp_path / "kinds.jsonl", 40)
    right = right_answers(file)
    loopback.reply_to = lambda request: (
        Reply(text=right[request["messages"][-1]["content"]]) if request["seed"] == 1 else Reply(status=503)
    )
    config = AdaptConfig(
        models=("openai/llm",), plan=SEEDED, label="exact", scorer=str(toy), settings=("updates=1",), held_out=0.3
    )
    more = {"api_base": loopback.base, "limits": Limits(max_retries=0, give_up_after=100, cool_down_after=100)}
    assert adapt([file], tmp_path / "out", config, **more).report is None
    done = adapt([file], tmp_path / "out", config, **more, partial_samples=True)
    assert done.report.candidates == 1.0
    assert done.report.quality("first") == 1.0


def test_a_key_has_no_place_in_what_is_kept():
    with pytest.raises(ValueError, match="api_key can't be given here"):
        AdaptConfig(params={"api_key": "sk-1"})


def test_a_model_that_is_down_ends_with_3_and_the_same_command_goes_on(tmp_path, loopback, toy):
    file = instances(tmp_path / "kinds.jsonl", 40)
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
        ([], {}, "give a file of instances, or recorded samples"),
        (["nowhere.jsonl"], {"models": ("openai/llm",)}, "no such file"),
        (["kinds.jsonl"], {}, "give models to ask, or recorded samples"),
        (["kinds.jsonl"], {"models": ("openai/llm",), "settings": ("speed=9",)}, "speed"),
        (["kinds.jsonl"], {"models": ("openai/llm",), "label": "taste"}, "taste"),
    ],
)
def test_what_can_t_be_done_is_said_before_there_is_a_folder(tmp_path, monkeypatch, toy, files, given, message):
    monkeypatch.chdir(tmp_path)
    instances(tmp_path / "kinds.jsonl", 30)
    with pytest.raises(InputError, match=message):
        adapt(files, tmp_path / "out", AdaptConfig(scorer=str(toy), **given))
    assert not (tmp_path / "out").exists()


def test_a_bad_option_is_one_line(tmp_path):
    file = instances(tmp_path / "kinds.jsonl", 30)
    done = run(tmp_path / "out", file, "-m", "openai/llm", "--held-out", "1.5", settings=())
    assert done.returncode == 2
    assert "held_out" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
