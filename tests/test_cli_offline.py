"""The verbs of the offline line, as a user runs them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
from commands import cappy, ok
from loopback import Reply
from tasks import choice, open_ended, write

ROWS = [choice(number) for number in range(6)] + [open_ended(number) for number in range(6)]


@pytest.fixture
def workplace(tmp_path, monkeypatch, loopback):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_BASE", loopback.base)
    write(tmp_path / "tasks.jsonl", ROWS)
    return tmp_path


SAMPLE = ("sample", "tasks.jsonl", "--store", "s.db", "-m", "openai/a")


def test_from_a_table_to_pairs_and_a_look_at_each(workplace):
    (workplace / "tickets.csv").write_text(
        'question,answer\nWhere is my invoice?,"Under Account, Billing."\nCan I pay by card?,Yes.\nA refund?,No.\n'
    )
    ok("data", "read", "tickets.csv", "--field", "instruction=question", "--field", "references=answer",
       "--out", "t.jsonl")  # fmt: skip
    sampled = json.loads(ok("sample", "t.jsonl", "--store", "s.db", "-m", "openai/a", "-n", "2", "--json").stdout)
    assert sampled["stored"] == {"openai/a": 6}
    assert sampled["outcome"]["answers"] == 6
    judged = json.loads(ok("data", "judge", "s.db", "-m", "openai/a", "--json").stdout)
    assert (judged["judge"], judged["left"], judged["unreadable"]) == ("openai/a", 3, 3)  # "ok" is no mark
    manifest = json.loads(
        ok("build", "t.jsonl", "--recorded", "s.db", "--out", "pairs", "--validation", "0", "--json").stdout
    )
    assert manifest["rows"]["train"]["kinds"] == {"augmented": 3, "gold": 3, "mismatch": 3}
    for file, holds in [("t.jsonl", "instances"), ("s.db", "samples"), ("pairs", "pairs")]:
        assert json.loads(ok("data", "show", file, "--json").stdout)["holds"] == holds
        assert holds in ok("data", "show", file).stdout
    ok("data", "show", "pairs", "--plot", "plot.png")
    assert (workplace / "plot.png").read_bytes().startswith(b"\x89PNG")
    recorded = [json.loads(line) for line in ok("data", "samples", "s.db").stdout.splitlines()]
    assert [len(row["candidates"]) for row in recorded] == [2, 2, 2]
    (workplace / "again.jsonl").write_text(ok("data", "samples", "s.db").stdout)
    assert json.loads(ok("sample", "--store", "two.db", "--recorded", "again.jsonl", "--json").stdout)["recorded"] == 6


def test_pairs_by_task_for_people(workplace):
    shown = ok("build", "tasks.jsonl", "--out", "pairs", "--validation", "0").stdout
    assert "colors" in shown
    assert "│ in all │   12 │       24 │         36 │        36 │          0 │" in shown
    assert "over 512" in shown


def test_a_dry_run_says_calls_and_dollars_and_asks_nothing(workplace, loopback):
    shown = ok(*SAMPLE, "-n", "3", "--dry-run", "--max-tokens", "5").stdout
    assert "36" in shown
    assert loopback.requests == []
    assert [path.name for path in workplace.iterdir()] == ["tasks.jsonl"]


def test_a_model_that_was_given_up_is_exit_code_3(workplace, loopback):
    loopback.replies["a"] = [Reply(status=401)]
    done = cappy(*SAMPLE)
    assert done.returncode == 3
    assert "openai/a: stopped" in done.stderr
    assert "did not come" in done.stderr
    assert "auth" in ok("data", "show", "s.db").stderr


def test_what_was_left_out_is_said_with_its_place(workplace):
    write(workplace / "bad.jsonl", [ROWS[0], "{", {"id": "1", "instruction": "x", "references": None}, ROWS[1]])
    done = ok("sample", "bad.jsonl", "--store", "s.db", "-m", "openai/a", "-n", "1")
    assert "2 rows left out" in done.stderr
    assert "bad.jsonl:2: not JSON" in done.stderr
    assert "bad.jsonl:3: references" in done.stderr
    built = ok("build", "bad.jsonl", "--out", "pairs")
    assert "2 rows can't be used" in built.stderr
    for verb in (("sample", "bad.jsonl", "--store", "s.db", "-m", "openai/a"), ("build", "bad.jsonl", "--out", "two")):
        strict = cappy(*verb, "--strict")
        assert strict.returncode == 2
        assert "bad.jsonl:2: not JSON" in strict.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sample", "--store", "s.db"), "give instances and a --model"),
        (("sample", "tasks.jsonl", "--store", "s.db"), "--model"),
        (("sample", "nowhere.jsonl", "--store", "s.db", "-m", "openai/a"), "no such file: nowhere.jsonl"),
        (("sample", "tasks.jsonl", "--store", "tasks.jsonl", "-m", "openai/a"), "not a sample store"),
        ((*SAMPLE, "--concurrency", "0"), "concurrency"),
        ((*SAMPLE, "--max-cost", "1"), "price"),
        ((*SAMPLE, "--field", "colour=x"), "OURS=THEIRS"),
        (("build", "tasks.jsonl", "--out", "p", "--mode", "both"), "mode"),
        (("build", "tasks.jsonl", "--out", "p", "--mixture", "half.json"), "half.json"),
        (("build", "tasks.jsonl", "--out", "p", "--label", "taste"), "taste"),
        (("build", "nowhere.jsonl", "--out", "p"), "no such file: nowhere.jsonl"),
        (("build", "tasks.jsonl", "--out", "tasks.jsonl"), "another folder"),
        (("data", "show", "nowhere"), "no such file"),
        (("data", "show", "tasks.jsonl", "--plot", "plot.doc"), "PNG"),
        (("data", "samples", "nowhere.db"), "no sample store"),
        (("data", "judge", "nowhere.db", "-m", "openai/a"), "no sample store"),
        (("sample", "--store", "s.db", "--recorded", "tasks.jsonl", "--dry-run"), "dry run"),
        (("build", "tasks.jsonl", "--out", "p", "--label", "judge:"), "judge:MODEL"),
        (("build", "tasks.jsonl", "--out", "p", "--samples", "s.db"), "No such option: --samples"),
        (("adapt", "tasks.jsonl", "--out", "p", "--samples", "s.db"), "No such option: --samples"),
        (("data", "judge", "tasks.jsonl", "-m", "openai/a"), "not a sample store"),
    ],
)
def test_a_mistake_is_one_clear_line(workplace, arguments, message):
    done = cappy(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert (workplace / "tasks.jsonl").read_text().count("\n") == len(ROWS)


def test_rows_of_a_table_that_can_not_be_read_do_not_take_the_others_with_them(workplace):
    content = b'\xef\xbb\xbfinstruction,references\nIs it?,Yes\n"a"b,No\nBad \xff byte,No\nIs, it,not,so\nAnd?,\n'
    (workplace / "t.csv").write_bytes(content + b"Long?," + b"y" * 200_000 + b"\n")
    done = json.loads(ok("data", "read", "t.csv", "--out", "t.jsonl", "--json").stdout)
    assert (done["instances"], done["skipped"]) == (3, 3)
    rows = [json.loads(line) for line in (workplace / "t.jsonl").read_text().splitlines()]
    assert [row["references"] for row in rows][:2] == [["Yes"], []]
    assert len(rows[2]["references"][0]) == 200_000
    (workplace / "open.csv").write_text('instruction,references\nA?,a\n"x"y,z\nB?,b\n"C?,c\nD?,d\n')
    done = cappy("data", "read", "open.csv", "--out", "o.jsonl")
    assert "open.csv:3: " in done.stderr
    assert "open.csv:5: unexpected end of data (in lines 5 to 6)" in done.stderr
    (workplace / "wide.csv").write_text("instruction,references,,\nA?,a,,\n")
    assert json.loads(ok("data", "read", "wide.csv", "--out", "w.jsonl", "--json").stdout)["instances"] == 1
    (workplace / "twice.csv").write_text("instruction,a,a\nx,y,z\n")
    assert "several columns are called 'a'" in cappy("data", "read", "twice.csv", "--out", "u.jsonl").stderr


def test_ctrl_c_keeps_what_came_and_the_next_run_goes_on(workplace, loopback):
    loopback.replies["a"] = [Reply(delay_s=0.05)]
    command = [sys.executable, "-m", "cappy_select", *SAMPLE, "-n", "10", "--concurrency", "2"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while len(loopback.requests) < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    loopback.replies["a"] = [Reply()]
    seen = len(loopback.requests)
    done = json.loads(ok(*SAMPLE, "-n", "10", "--json").stdout)
    assert done["stored"] == {"openai/a": 120}
    assert done["estimate"][0]["stored"] > 0
    assert len(loopback.requests) - seen == 120 - done["estimate"][0]["stored"]
