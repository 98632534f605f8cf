"""`cappy eval bigbench`: the ways to pick one of 17 answers, of a real tiny model and recorded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from loopback import Reply
from tasks import write
from tiny import make_t5
from typer.testing import CliRunner

from cappy_select import InputError
from cappy_select.ask.recorded import Recorded
from cappy_select.ask.sampling import Plan
from cappy_select.cli.eval import app
from cappy_select.data.formats import Problems
from cappy_select.data.instances import Instance
from cappy_select.data.store import Key, SampleStore, canonical
from cappy_select.evaluate.bigbench import (
    KINDS,
    Answered,
    bigbench_report,
    evaluate_bigbench,
    generation,
    kind_of,
    recorded_answers,
)
from cappy_select.evaluate.report import markdown, write_report

REFERENCE = "alpha beta gamma delta"
F1 = [2 * count / (count + 4) for count in range(5)]  # of an answer with so many of its words
WAYS = [sampling for sampling in Plan.preset("paper").samplings for _ in range(sampling.n)]


class Marks:
    """A scorer that counts exclamation marks, which are no words; it keeps what it read."""

    def __init__(self, sign=1):
        self.bundle, self.sign, self.read = f"marks {sign:+}", sign, []

    def score_detailed(self, pairs, on_progress=None):
        self.read += pairs
        if on_progress is not None:
            on_progress(len(pairs))
        scores = np.array([self.sign * response.count("!") for _, response in pairs], np.float32)
        return SimpleNamespace(scores=scores, cut=np.ones(len(pairs), np.int32))


def instance(number, task="tense", **more):
    given = {"id": f"{task}#{number}", "task": task, "instruction": f"Question {number} of {task}?"}
    return Instance(**given | {"references": (REFERENCE,)} | more)


def seventeen(words, marks, likelihoods=None, **extra):
    """The paper's 17: of so many right words each, with so many exclamation marks."""
    return tuple(
        Recorded(
            model="m",
            response=" ".join([*REFERENCE.split()[: words[place]], "!" * marks[place]]),
            sampling=WAYS[place].params | extra,
            logprob_sum=None if likelihoods is None else likelihoods[place],
            logprob_mean=None if likelihoods is None else -likelihoods[place],
        )
        for place in range(17)
    )


WORDS = [0, 1, 2, 3, 1, 2, 3, 4, 2, 0, 0, 0, 3, 0, 0, 0, 4]
MARKS = list(range(17))  # the last, of four words, has most
LIKELIHOODS = [-5.0, -0.1, *[-5.0] * 4, -9.0, *[-5.0] * 10]  # the second is the likeliest, the seventh the least


def test_the_papers_samplings_are_told_apart_and_others_are_none():
    expected = [*(kind for kind in KINDS[:4] for _ in range(4)), "beam"]
    assert [kind_of(sample) for sample in seventeen(WORDS, MARKS)] == expected
    for odd in ({}, {"temperature": 0}, {"temperature": 0.7}, {"beams": 2}, {"max_tokens": 64}):
        assert kind_of(Recorded(model="m", response="", sampling=odd)) is None
    assert kind_of(Recorded(model="m", response="", sampling={"temperature": 0.9, "seed": 3})) == "temperature"


def test_every_way_picks_as_it_says_and_tasks_count_the_same():
    rows = [Answered(instance(number), seventeen(WORDS, MARKS, LIKELIHOODS)) for number in range(3)]
    rows.append(Answered(instance(0, "rhymes"), seventeen([0] * 17, MARKS, LIKELIHOODS)))
    report = evaluate_bigbench({"m": rows}, Marks(), against=Marks(-1), parameters={"m": 80_000})
    (model,) = report.models
    rhymes, tense = model.tasks
    assert (rhymes.task, rhymes.n, tense.task, tense.n) == ("rhymes", 1, "tense", 3)
    expected = {
        "sampling": F1[0], "temperature": F1[1], "top_k": F1[2], "nucleus": F1[3], "beam": F1[4],
        "self_sum": F1[1], "self_mean": F1[3], "cappy": F1[4], "against": F1[0], "oracle": F1[4],
        "random": np.mean([F1[count] for count in WORDS]),
    }  # fmt: skip
    assert tense.quality == pytest.approx(expected)
    assert model.quality == pytest.approx({way: value / 2 for way, value in expected.items()})
    assert (model.n, model.samples, model.missing, model.paper_tasks, model.cut_pairs) == (4, 68, 0, 1, 68)
    text = markdown(bigbench_report(report))
    assert "m (80,000 parameters) made 68 samples; 0 more did not come" in text
    assert "2 tasks count, 1 of the paper's 45" in text
    assert "| Cappy large | 24.45 | 28.25 | 30.75 | 33.97 | 36.93 |" in text
    assert f"| Cappy minus self-scoring (sum) | +{100 * (F1[4] - F1[1]) / 2:.1f} |" in text


def test_intervals_are_over_tasks_and_over_the_instances_of_each_task():
    better, same = seventeen(WORDS, MARKS, LIKELIHOODS), seventeen([0] * 17, MARKS, LIKELIHOODS)
    # Every task has the same mean; within each half of the instances gain.
    rows = [Answered(instance(n, f"t{t}"), better if n % 2 else same) for t in range(4) for n in range(40)]
    (model,) = evaluate_bigbench({"m": rows}, Marks()).models
    difference = next(each for each in model.differences if each.minus == "self_sum")
    gain = F1[4] - F1[1]
    assert difference.mean == difference.tasks.low == difference.tasks.high == pytest.approx(gain / 2)
    # The mean of 160 halves deviates by gain / 2 / sqrt(160).
    assert difference.instances.high - difference.mean == pytest.approx(1.96 * gain / 2 / 160**0.5, rel=0.05)
    report = evaluate_bigbench({"m": rows[:1]}, Marks())
    single = report.models[0].differences[0]
    assert (single.tasks, single.instances) == (None, None)
    # A task with one instance adds no variance: there is none to tell.
    lonely = evaluate_bigbench({"m": [*rows, Answered(instance(0, "lonely"), same)]}, Marks())
    assert next(each for each in lonely.models[0].differences if each.minus == "self_sum").instances is None
    text = markdown(bigbench_report(lonely))
    assert "(no interval: one instance)" in text
    assert "as few as 1 tasks, or instances of a task" in text


def test_tasks_of_one_instance_and_of_more_make_a_picture(tmp_path):
    samples = seventeen(WORDS, MARKS, LIKELIHOODS)
    rows = [Answered(instance(number, task), samples) for number, task in ((0, "one"), (0, "two"), (1, "two"))]
    assert write_report(tmp_path, bigbench_report(evaluate_bigbench({"m": rows}, Marks())))
    assert (tmp_path / "tasks.png").exists()


def test_models_that_answered_different_instances_are_told_apart():
    samples = seventeen(WORDS, MARKS)
    rows = [Answered(instance(number), samples) for number in range(3)]
    said = "The models answered different instances (m 3, n 2; 2 are common to all)"
    assert said in markdown(bigbench_report(evaluate_bigbench({"m": rows, "n": rows[1:]}, Marks())))
    same = evaluate_bigbench({"m": rows, "n": rows}, Marks())
    assert same.common == 3
    assert "different instances" not in markdown(bigbench_report(same))


def test_an_instance_without_a_score_is_wrong_and_counted():
    report = evaluate_bigbench({"m": [Answered(instance(0), seventeen([4] * 17, MARKS))]}, Marks(np.nan))
    assert (report.models[0].quality["cappy"], report.models[0].unscored) == (0, 1)
    assert "To 1 instances the scorer gave no number" in markdown(bigbench_report(report))


def test_instances_without_all_kinds_are_left_out_and_what_did_not_come_is_counted():
    whole = seventeen(WORDS, MARKS)
    rows = [
        Answered(instance(0), whole), Answered(instance(1), whole[:15] + whole[16:]),  # one of the nucleus less
        Answered(instance(2), whole[:16]), Answered(instance(3), ()),
    ]  # fmt: skip
    (model,) = evaluate_bigbench({"m": rows}, Marks(), asked=17).models
    assert (model.n, model.incomplete, model.missing) == (2, 2, 1 + 1 + 17)
    assert "self_sum" not in model.quality
    assert model.tasks[0].difference is None
    with pytest.raises(InputError, match="none of 1 instances"):
        evaluate_bigbench({"m": rows[3:]}, Marks())


def test_in_context_the_scorer_reads_the_bare_instruction():
    shown = seventeen([3] * 17, MARKS, LIKELIHOODS, prompt="p")
    rows = [Answered(instance(0), seventeen(WORDS, MARKS, LIKELIHOODS), shown)]
    rows.append(Answered(instance(1), seventeen(WORDS, MARKS, LIKELIHOODS)))  # no example fitted
    scorer = Marks()
    (model,) = evaluate_bigbench({"m": rows}, scorer).models
    assert model.quality["cappy"] == F1[4]
    assert model.quality["in_context_cappy"] == pytest.approx((F1[3] + F1[4]) / 2)
    assert model.quality["in_context_self_sum"] == pytest.approx((F1[3] + F1[1]) / 2)
    assert model.quality["in_context_nucleus"] == F1[3]
    assert (model.without_examples, model.missing) == (1, 0)
    assert {instruction for instruction, _ in scorer.read} == {row.instance.instruction for row in rows}


def test_references_that_rouge_can_not_count_are_said():
    rows = [Answered(instance(0, references=("हाँ",)), seventeen(WORDS, MARKS))]
    report = evaluate_bigbench({"m": rows}, Marks())
    assert report.models[0].unscorable == 1
    assert "1 instances score 0 whatever is answered" in markdown(bigbench_report(report))


def test_only_generation_counts_each_instance_once_and_so_many_of_a_task():
    given = [instance(0), instance(0), instance(1), instance(2), instance(0, "rhymes"), instance(3, references=())]
    kept, left_out = generation([*given, instance(4, choices=("a", "b"))], limit=2)
    assert [one.id for one in kept] == ["tense#0", "tense#1", "rhymes#0"]
    assert left_out == 2


def test_recorded_samples_come_from_files_and_stores(tmp_path):
    row = instance(0).model_dump(exclude_none=True)
    candidates = [sample.model_dump(exclude_none=True) for sample in seventeen(WORDS, MARKS)]
    choice = row | {"id": "c", "choices": ["a", REFERENCE], "candidates": candidates}
    file = write(tmp_path / "recorded.jsonl", [row | {"candidates": candidates}, choice])
    store = tmp_path / "samples.db"
    with SampleStore(store, write=True) as opened:
        prompted = [sample.sampling | {"prompt": "p"} for sample in seventeen(WORDS, MARKS)]
        keys = [Key("m", canonical(params), place % 4) for place, params in enumerate(prompted)]
        opened.add(instance(0), zip(keys, seventeen(WORDS, MARKS), strict=True))
    answers, left_out = recorded_answers([file, store], Problems(strict=True), instances=None, limit=5)
    (only,) = answers["m"]
    assert (only.instance.id, len(only.bare), len(only.in_context), left_out) == ("tense#0", 17, 17, 1)
    shutil.copy(store, tmp_path / "copy.db")
    (twice,) = recorded_answers([store, tmp_path / "copy.db"], Problems(strict=True), instances=None, limit=5)[0]["m"]
    assert len(twice.in_context) == 17
    with SampleStore(store, write=True) as opened:
        opened.add(instance(0), [(Key("m", canonical({"prompt": "q"}), 0), seventeen(WORDS, MARKS)[0])])
    with pytest.raises(InputError, match="2 different prompts"):
        recorded_answers([store], Problems(strict=True), instances=None, limit=5)


# ---------------------------------------------------------------- the command


def run(*arguments):
    """In this process: PyTorch and the scorer need not load again."""
    return CliRunner().invoke(app, ["bigbench", *map(str, arguments), "--json"], catch_exceptions=False)


def bigbench(*arguments, cwd, **env):
    command = [sys.executable, "-m", "cappy_select", "eval", "bigbench", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=os.environ | env, timeout=120)


@pytest.fixture
def questions(tmp_path):
    asked = "which river begins in peru"
    rows = [
        {"id": "1", "task": "tense", "instruction": asked, "references": ["the river"]},
        {"id": "2", "task": "facts", "instruction": asked, "references": ["yes"], "choices": ["yes", "no"]},
    ]
    return write(tmp_path / "questions.jsonl", rows)


@pytest.fixture
def one_thread():
    """In a model this small several only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_local_model_is_asked_once_with_and_without_examples(questions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = f"transformers:{make_t5(tmp_path / 'tiny-t5')}"
    examples = write(tmp_path / "examples.jsonl", [{"input": "which town", "output": "vienna"}])
    arguments = (questions, "--model", model, "--examples", examples, "--shots", 1)
    first = run(*arguments)
    report = json.loads(first.stdout)
    (found,) = report["models"]
    assert (report["left_out"], found["n"], found["samples"], found["missing"]) == (1, 1, 34, 0)
    assert set(found["quality"]) >= {*KINDS, "self_sum", "self_mean", "cappy", "oracle", "random", "in_context_cappy"}
    assert found["quality"]["oracle"] >= found["quality"]["cappy"]
    assert found["parameters"] > 10_000
    assert "1 instances have choices" in first.stderr
    folder = tmp_path / "runs" / "eval" / "bigbench"
    assert {path.name for path in folder.iterdir()} >= {
        "samples.db", "report.json", "report.md", "report.html", "methods.png", "tasks.png",
    }  # fmt: skip
    with SampleStore(folder / "samples.db") as store:
        before = [stored for _, stored in store.instances()]
        assert all(one.sample.logprob_sum < 0 for stored in before for one in stored)
    assert json.loads(run(*arguments).stdout) == report
    with SampleStore(folder / "samples.db") as store:
        assert [stored for _, stored in store.instances()] == before
    recorded = run("--recorded", folder / "samples.db", "--out", "other")
    assert json.loads(recorded.stdout)["models"][0]["quality"] == found["quality"]


def test_a_servers_model_has_the_ways_that_it_can_and_a_limit_needs_a_price(questions, loopback, tmp_path):
    loopback.replies["a"] = [Reply(text="the river", logprobs=[-0.5, -0.5])]
    arguments = (questions, "--model", "openai:a", "--api-base", loopback.base, "--json")
    refused = bigbench(*arguments, cwd=tmp_path, OPENAI_API_KEY="k")
    assert (refused.returncode, "can't do" in refused.stderr) == (2, True)
    done = bigbench(*arguments, "--allow-downgrade", cwd=tmp_path, OPENAI_API_KEY="k")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)["models"]
    assert found["quality"]["sampling"] == found["quality"]["cappy"] > 0
    assert not {"top_k", "beam"} & found["quality"].keys()
    limited = bigbench(*arguments, "--allow-downgrade", "--max-cost", 1, cwd=tmp_path, OPENAI_API_KEY="k")
    assert (limited.returncode, "price" in limited.stderr) == (2, True)


def test_a_model_that_is_down_ends_with_3_and_a_report_of_what_there_is(questions, loopback, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    answer, refusal = Reply(text="the river"), Reply(status=401)
    loopback.replies |= {"half": [answer, answer, answer, refusal], "down": [refusal]}
    given = (questions, "--api-base", loopback.base, "--allow-downgrade", "--out", tmp_path / "out")
    stopped = run(*given, "-m", "openai:down")
    assert (stopped.exit_code, stopped.stdout) == (3, "")
    assert "down: stopped" in stopped.stderr
    assert "no report yet: there are no answers" in stopped.stderr
    assert not (tmp_path / "out" / "report.json").exists()
    stopped = run(*given, "-m", "openai:down", "-m", "openai:half")
    assert stopped.exit_code == 3
    assert "half: stopped" in stopped.stderr
    (half,) = json.loads((tmp_path / "out" / "report.json").read_text())["models"]
    assert json.loads(stopped.stdout)["models"] == [half]
    assert (half["n"], half["samples"], half["missing"]) == (1, 3, 14)
    loopback.replies["half"] = [answer]
    done = run(*given, "-m", "openai:half")
    assert (done.exit_code, json.loads(done.stdout)["models"][0]["missing"]) == (0, 0)


def test_without_the_hub_one_error_says_to_give_files(tmp_path):
    model = ("--model", "transformers:nothing")
    for arguments, env in ((model, {"HF_HUB_OFFLINE": "1"}), ((*model, "--copies", "here"), {})):
        done = bigbench(*arguments, cwd=tmp_path, HF_HOME=str(tmp_path / "home"), **env)
        assert done.returncode == 2
        assert "give files" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert "give a --model to ask, or --recorded samples" in bigbench(cwd=tmp_path).stderr
