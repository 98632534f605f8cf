"""Language models and reward models as judges of choices: tiny real checkpoints, against transformers by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from commands import cappy, ok
from fakehub import serve_hub
from tiny import WORDS, awkward_pairs, make_bert, make_gpt2, make_t5
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

from cappy_select import InputError
from cappy_select.evaluate.likelihood import LikelihoodJudge
from cappy_select.evaluate.reward import RewardJudge

QUESTION = " ".join(WORDS[:9])
CHOICES = ("yes", "no maybe", "the river begins in peru", "")
PAIRS = [(QUESTION, choice) for choice in CHOICES]


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return make_t5(tmp_path_factory.mktemp("models") / "tiny-t5-3M")


def written(path):
    rows = [
        {
            "id": f"{task}{number}", "task": task, "instruction": f"{QUESTION} {number}", "references": ["yes"],
            "choices": ["no maybe", "yes"],
        }
        for task in ("rte", "capitals") for number in range(3)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_likelihoods_are_those_of_the_choices_tokens_alone(t5):
    found = LikelihoodJudge(f"transformers:{t5}").judge(PAIRS)
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(t5).eval(), AutoTokenizer.from_pretrained(t5)
    source = tokenizer(QUESTION, return_tensors="pt")["input_ids"]
    for place, choice in enumerate(CHOICES[:3]):
        target = tokenizer(choice, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=source, labels=target).logits
        values = torch.log_softmax(logits, -1).gather(2, target[:, :, None])[0, :, 0]
        assert found["tiny-t5-3M sum"][place] == pytest.approx(float(values.sum()), abs=1e-4)
        assert found["tiny-t5-3M mean"][place] == pytest.approx(float(values.mean()), abs=1e-4)
    assert found["tiny-t5-3M sum"][3] == found["tiny-t5-3M mean"][3] == -np.inf


def test_likelihoods_keep_the_order_and_tell_of_progress(tmp_path):
    judge = LikelihoodJudge(f"transformers:{make_gpt2(tmp_path / 'tiny')}")
    pairs = [*PAIRS[:2], ("other question", "yes"), *PAIRS[1:3]]
    seen = []
    found = judge.judge(pairs, seen.append)["tiny sum"]
    assert sum(seen) == 5
    assert found[1] == pytest.approx(found[3])
    assert found.tolist() == [float(judge.judge([pair])["tiny sum"][0]) for pair in pairs]
    assert judge.parameters is None


def test_a_model_that_is_none_is_named(tmp_path):
    for wrong in ("gpt2", "transformers:", "openai:x"):
        with pytest.raises(InputError, match="written transformers:PATH"):
            LikelihoodJudge(wrong)
    with pytest.raises(InputError, match="can't be loaded"):
        LikelihoodJudge(f"transformers:{tmp_path}")


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_reward_models_numbers_are_those_of_transformers(checkpoints, kind):
    folder = checkpoints[kind]
    pairs = [pair for pair in awkward_pairs(48) if all(pair)]
    seen = []
    judge = RewardJudge(str(folder))
    (found,) = judge.judge(pairs, seen.append).values()
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for pair, number in zip(pairs, found, strict=True):
        inputs = tokenizer(*pair, truncation="longest_first", max_length=512, return_tensors="pt")
        with torch.no_grad():
            assert number == pytest.approx(float(model(**inputs).logits[0, 0]), abs=1e-4)
    assert sum(seen) == len(pairs)
    assert judge.parameters == sum(weights.numel() for weights in model.parameters())


def test_pickled_weights_are_read_and_a_pickle_of_code_is_not(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "reward")
    expected = RewardJudge(str(folder)).judge(PAIRS[:3])["reward"]
    state = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    assert RewardJudge(str(folder)).judge(PAIRS[:3])["reward"] == pytest.approx(expected, abs=1e-6)

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({**state, "x": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="can't be loaded as a reward model"):
        RewardJudge(str(folder))
    assert not (tmp_path / "ran").exists()


def test_what_is_no_reward_model_is_named(t5, tmp_path):
    with pytest.raises(InputError, match="it has 3 labels"):
        RewardJudge(str(make_bert(tmp_path / "three", num_labels=3)))
    with pytest.raises(InputError, match="no reward model at 'nowhere'"):
        RewardJudge("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="can't be loaded"):
        RewardJudge(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="reward model"):
        RewardJudge(str(t5))  # its head would be made up


def test_a_reward_model_comes_from_the_hub(checkpoints, tmp_path):
    code = (
        "from cappy_select.evaluate.reward import RewardJudge\n"
        f"print(RewardJudge('org/reward').judge({PAIRS[:3]!r})['reward'].tolist())"
    )
    with serve_hub({"org/reward": checkpoints["bert"]}) as (address, downloads):
        env = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    (expected,) = RewardJudge(str(checkpoints["bert"])).judge(PAIRS[:3]).values()
    assert json.loads(done.stdout) == pytest.approx(expected.tolist(), abs=1e-5)
    assert "model.safetensors" in downloads


def test_the_command_has_them_as_columns_and_in_the_json(checkpoints, t5, tmp_path, default):
    file = written(tmp_path / "rows.jsonl")
    report = json.loads(
        ok(
            "eval", "zeroshot", file, "--likelihood", f"transformers:{t5}", "--reward-model", checkpoints["bert"],
            "--reward-model", checkpoints["roberta"], "--out", tmp_path / "out", "--json",
        ).stdout
    )  # fmt: skip
    names = ["tiny-t5-3M sum", "tiny-t5-3M mean", "tiny-bert", "tiny-roberta"]
    assert [each["scorer"] for each in report["baselines"]] == names
    assert [each["parameters"] for each in report["baselines"][:2]] == [3_000_000, 3_000_000]
    table = (tmp_path / "out" / "report.md").read_text()
    assert f"| {' | '.join(names)} |" in table
    pairs = [(f"{QUESTION} {number}", choice) for number in range(3) for choice in ("no maybe", "yes")]
    numbers = RewardJudge(str(checkpoints["bert"])).judge(pairs)["tiny-bert"].reshape(3, 2)
    accuracy = float((numbers[:, 1] > numbers[:, 0]).mean())
    assert {task["task"]: task["baselines"]["tiny-bert"] for task in report["tasks"]} == {
        "rte": pytest.approx(accuracy), "capitals": pytest.approx(accuracy),
    }  # fmt: skip
    assert report["baselines"][2]["mean"] == pytest.approx(accuracy)
    assert report["baselines"][2]["difference"] == pytest.approx(report["cappy"] - accuracy)
    assert {row["name"] for row in report["paper"]["ours"]} == {f"cappy-mini {default.bundle.manifest.version}", *names}
    copies = [shutil.copytree(checkpoints["bert"], tmp_path / folder / "tiny") for folder in "ab"]
    both = ("eval", "zeroshot", file, "--reward-model", copies[0], "--out", tmp_path / "out", "--reward-model")
    found = json.loads(ok(*both, copies[1], "--json").stdout)
    assert [each["scorer"] for each in found["baselines"]] == [str(copy) for copy in copies]
    twice = cappy(*both, f"{copies[0]}/")
    assert (twice.returncode, "--reward-model names a model twice" in twice.stderr) == (2, True)
    done = cappy("eval", "zeroshot", file, "--likelihood", "gpt2", "--out", tmp_path / "out")
    assert (done.returncode, "transformers:PATH" in done.stderr) == (2, True)
