"""The `cappy` command: what it prints for people and for machines, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import cappy, ok, process
from loopback import Reply

SENTIMENT = "What label best describes this news article?\nOil prices rose on Monday after producers cut output."


def test_rank_prints_best_first_and_json_for_machines():
    arguments = ("rank", SENTIMENT, "Sports", "Business")
    lines = ok(*arguments).stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["Business", "Sports"]
    assert ok(*arguments, run=process).stdout.splitlines() == lines
    rows = json.loads(ok(*arguments, "--json").stdout)
    assert [set(row) for row in rows] == [{"index", "response", "score"}] * 2
    assert [(row["index"], row["response"]) for row in rows] == [(1, "Business"), (0, "Sports")]
    assert rows[0]["score"] > rows[1]["score"]


def test_rank_reads_standard_input():
    for dash in ((), ("-",)):
        rows = json.loads(ok("rank", SENTIMENT, *dash, "--json", stdin="Sports\nBusiness\n").stdout)
        assert rows[0]["response"] == "Business"
    assert cappy("rank", SENTIMENT, stdin="").returncode == 2
    rows = json.loads(ok("rank", SENTIMENT, "--json", stdin="one\u2028response\r\nBusiness\n").stdout)
    assert {row["response"] for row in rows} == {"one\u2028response", "Business"}
    closed = [sys.executable, "-c", "import os, sys; os.close(0); os.execv(sys.argv[1], sys.argv[1:])", sys.executable]
    done = subprocess.run([*closed, "-m", "cappy_select", "rank", "q"], capture_output=True, text=True)
    assert (done.returncode, "no responses" in done.stderr) == (2, True)


def test_rank_says_what_was_cut():
    done = ok("rank", "word " * 900, "yes", "no", "--json")
    assert "2 of 2 pairs did not fit" in done.stderr
    assert len(json.loads(done.stdout)) == 2


def test_score_keeps_the_order():
    rows = json.loads(ok("score", SENTIMENT, "Sports", "Business", "--json").stdout)
    assert [row["response"] for row in rows] == ["Sports", "Business"]
    assert rows[1]["score"] > rows[0]["score"]
    assert ok("score", SENTIMENT, "Sports", "Business").stdout.splitlines()[0].endswith("Sports")


def test_score_takes_a_file_of_pairs(tmp_path):
    pairs = [{"instruction": SENTIMENT, "response": text, "extra": 1} for text in ("Sports", "Business", "Sports")]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    rows = [json.loads(line) for line in ok("score", "--pairs", file).stdout.splitlines()]
    assert [row["response"] for row in rows] == ["Sports", "Business", "Sports"]
    assert rows[0]["score"] == rows[2]["score"] < rows[1]["score"]
    assert ok("score", "--pairs", "-", stdin=file.read_text()).stdout.splitlines() == [json.dumps(row) for row in rows]


def test_pairs_are_scored_as_they_come(tmp_path):
    """The first window's scores are out while more is still to be written."""
    command = [sys.executable, "-m", "cappy_select", "score", "--pairs", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for number in range(4096):
            process.stdin.write(json.dumps({"instruction": "q", "response": str(number % 20)}) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["response"] == "0"
        process.stdin.write(json.dumps({"instruction": "q", "response": "last"}) + "\n")
        process.stdin.close()
        rows = process.stdout.read().splitlines()
    assert (len(rows), json.loads(rows[-1])["response"]) == (4096, "last")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", ":1 is not JSON"), ("{}\n", ":1 must be an object"), ('{"instruction": 1, "response": "x"}', ":1 must be")],
)
def test_a_broken_pairs_file_names_the_line(tmp_path, content, message):
    (tmp_path / "pairs.jsonl").write_text(content)
    done = cappy("score", "--pairs", tmp_path / "pairs.jsonl")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_score_wants_one_of_its_two_forms(tmp_path):
    assert cappy("score").returncode == 2
    assert cappy("score", "q", "a", "--pairs", tmp_path / "x").returncode == 2
    assert "no such file" in cappy("score", "--pairs", tmp_path / "nowhere").stderr


def test_select_prints_the_winner_and_names_what_failed(loopback):
    loopback.replies["good"] = [Reply(text="Business")]
    loopback.replies["bad"] = [Reply(status=401)]
    arguments = ("select", SENTIMENT, "-m", "openai/good", "-m", "openai/bad", "-n", 2, "--api-base", loopback.base)
    done = ok(*arguments, run=process, OPENAI_API_KEY="k")
    assert done.stdout == "Business\n"
    assert done.stderr == "cappy: openai/bad: auth: told to fail\n"  # and no library's noise
    dumped = json.loads(ok(*arguments, "--json", OPENAI_API_KEY="k").stdout)
    assert dumped["text"] == "Business"
    assert [failure["kind"] for failure in dumped["failures"]] == ["auth"]
    assert "score" in ok(*arguments, "--verbose", OPENAI_API_KEY="k").stderr


def test_select_with_no_answer_is_an_error_and_prints_no_answer(loopback):
    loopback.replies["bad"] = [Reply(status=401)]
    arguments = ("select", "q", "-m", "openai/bad", "-n", 1, "--api-base", loopback.base)
    done = cappy(*arguments, OPENAI_API_KEY="k")
    assert (done.returncode, done.stdout) == (2, "")
    assert "0 usable answers" in done.stderr
    assert "openai/bad: auth" in done.stderr
    as_json = process(*arguments, "--json", OPENAI_API_KEY="k")
    assert json.loads(as_json.stderr)["error"]["type"] == "NoCandidates"


def test_a_missing_key_is_said_at_once():
    env = {name: "" for name in os.environ if name.endswith("_API_KEY")}
    done = process("select", "q", "-m", "openai/x", "-n", 3, OPENAI_API_KEY="", **env)
    assert done.returncode == 2
    assert done.stderr.count("openai/x: auth") == 1
    assert "OPENAI_API_KEY" in done.stderr


def test_select_takes_messages_and_replays_files(tmp_path):
    row = {"id": "1", "instruction": "Name a river.", "candidates": [{"model": "a", "response": "The Ucayali."}]}
    (tmp_path / "recorded.jsonl").write_text(json.dumps(row))
    model = f"replay:{tmp_path / 'recorded.jsonl'}"
    assert ok("select", "Name a river.", "-m", model, "-n", 1).stdout == "The Ucayali.\n"
    chat = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a river."}])
    assert ok("select", "-", "--messages", "-m", model, "-n", 1, stdin=chat).stdout == "The Ucayali.\n"
    assert cappy("select", "not json", "--messages", "-m", model).returncode == 2


def test_export_makes_a_bundle_that_rank_uses(checkpoints, tmp_path):
    done = ok("export", checkpoints["bert"], tmp_path / "out", "--precision", "int8", "--json")
    assert json.loads(done.stdout)["precision"] == "int8"
    assert len(json.loads(ok("rank", "q", "a", "b", "--scorer", tmp_path / "out", "--json").stdout)) == 2


def test_a_checkpoint_that_cannot_be_exported_leaves_nothing(tmp_path):
    (tmp_path / "checkpoint").mkdir()
    done = process("export", tmp_path / "checkpoint", tmp_path / "out")
    assert done.returncode == 2
    assert "no config.json" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_broken_card_is_named(checkpoints, tmp_path):
    (tmp_path / "card.json").write_text('{"nmae": "x"}')
    done = cappy("export", checkpoints["bert"], tmp_path / "out", "--card", tmp_path / "card.json")
    assert done.returncode == 2
    assert "nmae" in done.stderr


def test_eval_selection(tmp_path):
    candidates = [{"model": m, "response": r, "correct": r == "42"} for m, r in (("a", "41"), ("b", "42"))]
    row = {"id": "1", "instruction": "17 + 25?", "references": ["42"], "candidates": candidates}
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row))
    out = ("--out", tmp_path / "out")
    report = json.loads(ok("eval", "selection", file, "--json", *out).stdout)
    keys = {"n", "random", "first", "longest", "best_single", "best_model", "vote", "cappy", "oracle"}
    assert keys <= set(report)
    assert (report["n"], report["random"], report["best_model"], report["oracle"]) == (1, 0.5, "b", 1.0)
    assert len(json.loads(ok("eval", "selection", file, file, "--json", *out).stdout)) == 2
    table = ok("eval", "selection", file, *out).stdout
    for name in ("random (expected)", "first", "longest", "best single (b)", "majority vote", "cappy", "oracle"):
        assert name in table


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_people_see_a_progress_bar_and_machines_do_not(tmp_path):
    import pty

    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(f'{{"instruction": "q {i}", "response": "a"}}\n' for i in range(2000)))
    terminal, inner = pty.openpty()
    command = [sys.executable, "-m", "cappy_select", "score", "--pairs", str(file)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=inner, env={**os.environ, "TERM": "xterm"})
    os.close(inner)
    seen = b""
    try:
        while part := os.read(terminal, 65536):
            seen += part
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(terminal)
    assert process.wait(timeout=60) == 0
    assert b"/2000" in seen
    assert ok("score", "--pairs", file).stderr == ""


def test_the_demo_runs_without_key_and_network():
    proxies = dict.fromkeys(("HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    done = ok("demo", run=process, OPENAI_API_KEY="", **proxies)
    for part in ("openai/quick", "openai/slow", "openai/broken", "server: this model is broken on purpose", "Business"):
        assert part in done.stdout
    assert "best: Old bridge to close for repairs until spring" in done.stdout
    assert "written for this demo" in done.stdout
    shown = json.loads(ok("demo", "--json").stdout)
    assert {candidate["model"] for candidate in shown["selection"]["candidates"]} == {"openai/quick", "openai/slow"}
    assert [failure["kind"] for failure in shown["selection"]["failures"]] == ["server"]
    assert shown["classification"][0]["response"] == "Business"


def test_help_names_every_verb_and_its_options():
    from cappy_select.cli import VERBS

    top = ok("--help", run=process).stdout
    for verb in VERBS:
        assert verb in top
        named = {"eval": ("eval", "selection"), "data": ("data", "show")}.get(verb, (verb,))
        assert "--json" in ok(*named, "--help").stdout
    assert ok("--version").stdout.startswith("cappy-select ")


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("rank",), ("export", "x"), ("select", "q"), ("rank", "--no-such")]
)
def test_a_usage_error_exits_with_2_and_no_traceback(arguments):
    done = cappy(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_traceback(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"instruction": "q", "response": "a"}\n' * 20_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "cappy_select", "score", "--pairs", str(file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.readline()
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(timeout=30)


def test_a_defect_of_ours_is_not_shown_as_a_traceback(monkeypatch, capsys):
    from cappy_select import cli

    monkeypatch.setattr(cli, "app", lambda: 1 / 0)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert "a defect of cappy-select" in capsys.readouterr().err


def test_select_takes_a_plan_gates_a_strategy_and_examples(loopback, tmp_path):
    loopback.gives_n = True
    texts = ["no JSON", '{"n": 1}', '{"n": 2}', '{"n": 2}']
    loopback.replies["m"] = [Reply(text=text) for text in texts]
    (tmp_path / "schema.json").write_text('{"type": "object", "required": ["n"]}')
    (tmp_path / "pool.jsonl").write_text('{"input": "One?", "output": "{\\"n\\": 1}"}\n')
    (tmp_path / "plan.json").write_text('{"samplings": [{"n": 4, "temperature": 0.9, "top_k": 5}]}')
    arguments = ["select", "Two?", "-m", "openai/m", "--api-base", loopback.base, "--plan", tmp_path / "plan.json"]
    refused = cappy(*arguments, OPENAI_API_KEY="k")
    assert refused.returncode == 2
    assert "openai/m can't do top_k=5" in refused.stderr
    done = ok(
        *arguments, "--allow-downgrade", "--strategy", "vote", "--extract", "number", "--grace", "1",
        "--json-schema", tmp_path / "schema.json", "--match", "n", "--examples", tmp_path / "pool.jsonl", "--json",
        OPENAI_API_KEY="k",
    )  # fmt: skip
    shown = json.loads(done.stdout)
    assert shown["text"] == '{"n": 2}'
    assert (shown["strategy"], shown["ended"]) == ("vote", "complete")
    assert shown["downgrades"] == [{"model": "openai/m", "left_out": {"top_k": 5}, "answers": 4}]
    assert [c["rejected"] is None for c in shown["candidates"]] == [True, True, True, False]
    (request,) = loopback.requests
    assert (request["n"], request["temperature"]) == (4, 0.9)
    assert len(request["messages"]) == 3


def test_select_says_when_no_answer_is_good_enough(loopback):
    done = cappy(
        "select", "q", "-m", "openai/m", "--api-base", loopback.base, "--abstain-below", "9", OPENAI_API_KEY="k"
    )
    assert done.returncode == 2
    assert done.stderr.startswith("cappy: no good answer: the best of 4 scored")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plan", "huge"], "there are single, quick, paper"),
        (["--allow-downgrade"], "is about a --plan"),
        (["--strategy", "best"], "there are argmax"),
        (["--extract", "x"], "there are text"),
        (["--json-schema", "/nowhere"], "can't be read"),
        (["--match", "("], "no regular expression"),
        (["--examples", "/nowhere"], "can't be read"),
        (["--max-cost", "1"], "needs the price"),
    ],
)
def test_an_option_that_means_nothing_is_said(arguments, message):
    done = cappy("select", "q", "-m", "openai/m", *arguments, OPENAI_API_KEY="k")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_eval_compares_every_strategy(tmp_path):
    rows = [
        {"model": "a", "response": "It is 41.", "correct": False, "cost": 0.1, "logprob_sum": -1, "logprob_mean": -1},
        {"model": "b", "response": "It is 42.", "correct": True, "cost": 0.1, "logprob_sum": -9, "logprob_mean": -0.5},
        {"model": "c", "response": "42", "correct": True, "cost": 0.1, "logprob_sum": -5, "logprob_mean": -2},
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"id": "1", "instruction": "6 * 7?", "references": ["42"], "candidates": rows}) + "\n")
    out = ("--out", tmp_path / "out")
    report = json.loads(ok("eval", "selection", file, "--strategy", "all", "--json", *out).stdout)
    assert report["strategies"] | {"argmax": 0, "cluster": 0, "quality_cost": 0, "minimum_bayes_risk": 0} == {
        "argmax": 0, "vote": 1.0, "weighted_vote": 1.0, "cluster": 0, "self_score_sum": 0.0, "self_score_mean": 1.0,
        "minimum_bayes_risk": 0, "quality_cost": 0,
    }  # fmt: skip
    assert report["strategies"]["argmax"] == report["cappy"]
    shown = ok("eval", "selection", file, "--strategy", "vote", "--strategy", "cluster", *out).stdout
    assert "strategy vote" in shown
    assert "strategy cluster" in shown
    for row in rows:
        del row["cost"], row["logprob_sum"]
    file.write_text(json.dumps({"id": "1", "instruction": "6 * 7?", "references": ["42"], "candidates": rows}) + "\n")
    shown = ok("eval", "selection", file, "--strategy", "all", *out).stdout
    assert "no costs recorded" in shown
    assert "no log-probabilities recorded" in shown


@pytest.mark.parametrize("verb", ["rank", "score"])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_bytes_that_are_no_text_are_scored_all_the_same(verb, locale):
    command = [sys.executable, "-m", "cappy_select", verb, b"Is it \xff?", "-"]
    done = subprocess.run(
        command, input=b"yes \xfe\xff\nno\n", capture_output=True, env=os.environ | {"LC_ALL": locale}, timeout=120
    )
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr


def test_answers_that_were_paid_for_are_told_to_machines_though_none_was_good_enough(tmp_path):
    file = tmp_path / "recorded.jsonl"
    file.write_text('{"id": "1", "instruction": "q", "candidates": [{"model": "m", "response": "a river"}]}\n')
    done = cappy("select", "q", "-m", f"replay:{file}", "-n", "1", "--abstain-below", "5", "--json")
    said = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (done.returncode, said["type"]) == (2, "NoGoodAnswer")
    assert said["selection"]["candidates"][0]["message"]["content"] == "a river"


def test_a_lone_surrogate_of_a_file_comes_back_as_it_was():
    done = ok("score", "--pairs", "-", stdin='{"instruction": "a", "response": "x\\ud83d"}\n')
    assert json.loads(done.stdout)["response"] == "x\ud83d"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_no_defect_of_ours():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cappy_select", "rank", "q", "a", "b"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert "can't be written: No space left on device" in done.stderr
    assert "defect" not in done.stderr


def test_nothing_is_asked_when_the_answer_has_nowhere_to_go():
    rank = [sys.executable, "-m", "cappy_select", "rank", "q", "a"]
    closed = f"import os; os.close(1); os.execv({sys.executable!r}, {rank!r})"
    done = subprocess.run([sys.executable, "-c", closed], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, "standard output is closed" in done.stderr) == (2, True)
