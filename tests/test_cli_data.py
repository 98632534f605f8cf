"""`cappy data`: what it makes, prints and refuses."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import commands
import pyarrow.parquet as pq
import pytest

ROWS = [{"instruction": f"Q{n}", "references": [f"A{n}"], "choices": ["A0", "A1", "A2"]} for n in range(3)]
TEMPLATES = """dataset: ag_news
templates:
  a: !Template
    answer_choices: World ||| Sports
    jinja: "{% if label < 2 %}Which section? {{text}} ||| {{ answer_choices[label] }}{% endif %}"
    name: section
  b: !Template
    answer_choices: null
    jinja: "Write about {{label}}. ||| {{text}}"
    metadata: !TemplateMetadata {original_task: false}
    name: write
"""


def cappy(*arguments, cwd, **env):
    return commands.cappy("data", *arguments, cwd=cwd, HF_HOME=str(cwd / "home"), **env)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def jsonl(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    jsonl(tmp_path / "qa.jsonl", *ROWS)
    jsonl(tmp_path / "news.jsonl", *({"text": f"Text {n}.", "label": n} for n in range(3)))
    (tmp_path / "templates.yaml").write_text(TEMPLATES)
    return tmp_path


def test_instances_of_several_sources_come_into_one_file(folder):
    jsonl(
        folder / "chats.jsonl",
        {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho."}]},
    )
    done = cappy("read", "qa.jsonl", "chats.jsonl", "--out", "out.jsonl", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "out": "out.jsonl",
        "instances": 4,
        "tasks": {"qa": 3, "chats": 1},
        "skipped": 0,
        "left_out_by_template": {},
        "repeated_ids": 0,
    }
    assert done.stderr == ""
    rows = lines(folder / "out.jsonl")
    assert rows[0] == {
        "id": "qa#1",
        "task": "qa",
        "instruction": "Q0",
        "references": ["A0"],
        "choices": ["A0", "A1", "A2"],
        "negatives": [],
        "template": None,
        "split": None,
        "group": None,
    }
    table = cappy("read", "qa.jsonl", "chats.jsonl", "--out", "two.jsonl", cwd=folder).stdout
    assert "4 instances in two.jsonl" in table
    assert [path.name for path in folder.iterdir() if "partial" in path.name] == []


@pytest.mark.parametrize("name", ["out.jsonl.gz", "out.parquet"])
def test_packed_files_hold_the_same_and_can_be_read_again(folder, name):
    assert cappy("read", "qa.jsonl", "--out", "plain.jsonl", cwd=folder).returncode == 0
    assert cappy("read", "qa.jsonl", "--out", name, cwd=folder).returncode == 0
    if name.endswith(".gz"):
        assert gzip.decompress((folder / name).read_bytes()) == (folder / "plain.jsonl").read_bytes()
    else:
        assert pq.read_table(folder / name).to_pylist() == lines(folder / "plain.jsonl")
    first = (folder / name).read_bytes()
    assert cappy("read", name, "--out", "again.jsonl", cwd=folder).returncode == 0
    assert lines(folder / "again.jsonl") == lines(folder / "plain.jsonl")
    assert cappy("read", "qa.jsonl", "--out", name, "--overwrite", cwd=folder).returncode == 0
    assert (folder / name).read_bytes() == first


def test_templates_and_options(folder):
    done = cappy("read", "news.jsonl", "--templates", ".", "--out", "o.jsonl", "--options", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["left_out_by_template"] == {"ag_news|section": 1}
    assert "1 times a template left a row out" in done.stderr
    rows = lines(folder / "o.jsonl")
    assert rows[0]["instruction"] == "Which section? Text 0.\n\nOPTIONS:\n- World\n- Sports"
    assert [row["template"] for row in rows] == ["section", "write", "section", "write", "write"]
    only = cappy("read", "news.jsonl", "--templates", ".", "--out", "p.jsonl", "--original-only", cwd=folder)
    assert only.returncode == 0
    assert {row["template"] for row in lines(folder / "p.jsonl")} == {"section"}


def test_at_most_so_many_of_each_task(folder):
    jsonl(folder / "many.jsonl", *({**ROWS[0], "task": task, "id": f"{task}{n}"} for n in range(50) for task in "ab"))
    for out in ("one.jsonl", "two.jsonl"):
        done = cappy("read", "many.jsonl", "--out", out, "--max-instances", 7, "--json", cwd=folder)
        assert json.loads(done.stdout)["tasks"] == {"a": 7, "b": 7}
    assert (folder / "one.jsonl").read_bytes() == (folder / "two.jsonl").read_bytes()
    cappy("read", "many.jsonl", "--out", "seed.jsonl", "--max-instances", 7, "--seed", 1, cwd=folder)
    assert (folder / "one.jsonl").read_bytes() != (folder / "seed.jsonl").read_bytes()


def test_fields_and_a_task_can_be_named(folder):
    (folder / "qa.csv").write_text("q,a\nWhich river?,The Ucayali.\n")
    names = ("--field", "instruction=q", "--field", "references=a", "--task", "rivers")
    assert cappy("read", "qa.csv", *names, "--out", "o.jsonl", cwd=folder).returncode == 0
    (row,) = lines(folder / "o.jsonl")
    assert (row["task"], row["instruction"], row["references"]) == ("rivers", "Which river?", ["The Ucayali."])
    unknown = cappy("read", "qa.csv", "--out", "p.jsonl", cwd=folder)
    assert unknown.returncode == 2
    assert "which format is this?" in unknown.stderr


def test_rows_that_are_none_are_listed_with_file_and_line_and_strict_stops(folder):
    bad = [{"instruction": "Q", "references": None}, {"instruction": "Q"}, "{"]
    jsonl(folder / "bad.jsonl", ROWS[0], *bad * 4)
    done = cappy("read", "bad.jsonl", "--out", "o.jsonl", "--json", cwd=folder)
    assert done.returncode == 0
    assert json.loads(done.stdout)["skipped"] == 12
    places = [line.split()[0] for line in done.stderr.splitlines() if line.startswith("  bad")]
    assert places == [f"bad.jsonl:{number}:" for number in range(2, 12)]
    assert "and 2 more" in done.stderr
    strict = cappy("read", "bad.jsonl", "--out", "p.jsonl", "--strict", cwd=folder)
    assert strict.returncode == 2
    assert "bad.jsonl:2" in strict.stderr
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith((".p", "p."))) == []


def test_a_text_that_no_file_can_hold_is_left_out(folder):
    jsonl(folder / "odd.jsonl", ROWS[0], '{"instruction": "Q", "references": ["\\ud800"]}', ROWS[1])
    done = cappy("read", "odd.jsonl", "--out", "o.jsonl", "--json", cwd=folder)
    assert (done.returncode, json.loads(done.stdout)["instances"]) == (0, 2)
    assert "odd.jsonl:2: no UTF-8 text" in done.stderr


def test_an_existing_file_is_kept_unless_told_otherwise_and_an_error_leaves_it_whole(folder):
    (folder / "o.jsonl").write_text("precious")
    done = cappy("read", "qa.jsonl", "--out", "o.jsonl", cwd=folder)
    assert done.returncode == 2
    assert "--overwrite replaces it" in done.stderr
    jsonl(folder / "bad.jsonl", ROWS[0], "{")
    failed = cappy("read", "bad.jsonl", "--out", "o.jsonl", "--overwrite", "--strict", cwd=folder)
    assert failed.returncode == 2
    assert (folder / "o.jsonl").read_text() == "precious"
    assert cappy("read", "qa.jsonl", "--out", "o.jsonl", "--overwrite", cwd=folder).returncode == 0
    assert len(lines(folder / "o.jsonl")) == 3


def test_interrupted_nothing_half_written_stays(folder):
    os.mkfifo(folder / "slow.jsonl")
    command = [sys.executable, "-m", "cappy_select", "data", "read", "qa.jsonl", "slow.jsonl", "--out", "o.jsonl"]
    command += ["--format", "instances"]
    interruptible = partial(signal.signal, signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, preexec_fn=interruptible) as process:
        deadline = time.monotonic() + 60
        while not list(folder.glob(".o.jsonl.*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(folder.glob(".o.jsonl.*"))
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert list(folder.glob("*o.jsonl*")) == []
    assert list(folder.glob(".o.jsonl*")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.jsonl", "--out", "o.jsonl"), "no such file or folder: none.jsonl"),
        (("qa.jsonl", "--out", "o.txt"), "are written as"),
        (("qa.jsonl", "--out", "none/o.jsonl"), "no such folder"),
        (("qa.jsonl", "--out", "o.jsonl", "--format", "x"), "unknown format 'x'"),
        (("qa.jsonl", "--out", "o.jsonl", "--format", "promptsource"), "needs --templates"),
        (("qa.jsonl", "--out", "o.jsonl", "--field", "x=y"), "OURS=THEIRS"),
        (("empty.jsonl", "--out", "o.jsonl"), "no instance in empty.jsonl; nothing was written"),
        (("t0", "--out", "o.jsonl"), "t0 needs PromptSource's templates"),
        (("hub:x//", "--out", "o.jsonl"), "is written hub:"),
        (("bigbench45", "--out", "o.jsonl", "--copies", "nowhere"), "no instance in bigbench45"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(folder, arguments, message):
    (folder / "empty.jsonl").write_text("")
    done = cappy("read", *arguments, cwd=folder)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "o.jsonl").exists()


def test_a_folder_of_tasks(folder):
    task = {
        "Definition": "Add.",
        "Positive Examples": [{"input": "1+1", "output": "2"}, {"input": "2+2", "output": "4"}],
        "Negative Examples": [],
        "Instances": [{"input": "3+3", "output": "6"}],
    }
    (folder / "tasks").mkdir()
    for name in ("task1.json", "task2.json"):
        (folder / "tasks" / name).write_text(json.dumps(task))
    done = cappy("read", "tasks", "--out", "o.jsonl", "--shots", 1, "--json", cwd=folder)
    assert json.loads(done.stdout)["tasks"] == {"task1": 1, "task2": 1}
    assert "Positive Example 1" in lines(folder / "o.jsonl")[0]["instruction"]
    assert "Positive Example 2" not in lines(folder / "o.jsonl")[0]["instruction"]


def test_copies_stand_in_for_the_hub(folder):
    held = folder / "copies" / "fancyzhx" / "ag_news"
    held.mkdir(parents=True)
    (held / "test.jsonl").write_text((folder / "news.jsonl").read_text())
    (folder / "ps" / "ag_news").mkdir(parents=True)
    (folder / "ps" / "ag_news" / "templates.yaml").write_text(TEMPLATES)
    more = ("--templates", "ps", "--copies", "copies", "--json")
    done = cappy("read", "hub:ag_news@test", "--out", "o.jsonl", *more, cwd=folder)
    assert json.loads(done.stdout)["tasks"] == {"ag_news": 5}, done.stderr
    assert lines(folder / "o.jsonl")[0]["id"] == "ag_news|test|section|#1"
    assert lines(folder / "o.jsonl")[0]["split"] == "test"
    (held / "train.jsonl").write_text((folder / "news.jsonl").read_text())
    done = cappy("read", "t0", "--out", "t0.jsonl", *more, cwd=folder)
    assert json.loads(done.stdout)["tasks"] == {"ag_news": 5}, done.stderr
    assert json.loads(done.stdout)["skipped"] == 37


def test_an_option_that_was_of_no_use_is_said(folder):
    done = cappy("read", "qa.jsonl", "--out", "o.jsonl", "--shots", "3", cwd=folder)
    assert done.returncode == 0
    assert "--shots was of no use: it is for natural_instructions" in done.stderr


def test_the_same_id_in_two_tasks_is_none_twice(folder):
    for task in ("a", "b"):
        (folder / f"{task}.jsonl").write_text('{"id": "1", "instruction": "Which?", "references": ["x"]}\n')
    done = cappy("read", "a.jsonl", "b.jsonl", "--out", "o.jsonl", "--json", cwd=folder)
    assert json.loads(done.stdout)["repeated_ids"] == 0


def test_max_instances_holds_for_a_task_over_the_files_of_a_folder(folder):
    (folder / "parts").mkdir()
    for part in range(3):
        rows = [
            json.dumps({"id": f"{part}{n}", "task": "T", "instruction": f"{part} {n}?", "references": ["x"]})
            for n in range(4)
        ]
        (folder / "parts" / f"part-{part}.jsonl").write_text("\n".join(rows))
    (folder / "below").mkdir()
    done = cappy("read", "../parts", "--out", "../o.jsonl", "--max-instances", "2", "--json", cwd=folder / "below")
    assert json.loads(done.stdout)["tasks"] == {"T": 2}


def test_repeated_ids_are_said(folder):
    done = cappy("read", "qa.jsonl", "qa.jsonl", "--out", "o.jsonl", "--json", cwd=folder)
    assert json.loads(done.stdout)["repeated_ids"] == 3
    assert "3 instances have the task and the id of another" in done.stderr


def test_sources_lists_what_there_is(folder):
    rows = json.loads(cappy("sources", "--json", cwd=folder).stdout)
    assert len(rows) == 38 + 45
    assert rows[0] == {"mixture": "t0", "task": "glue/mrpc", "hub": "nyu-mll/glue", "subset": "mrpc", "split": "train"}
    assert rows[-1]["hub"] == "tasksource/bigbench"
    assert "fancyzhx/ag_news" in cappy("sources", cwd=folder).stdout
