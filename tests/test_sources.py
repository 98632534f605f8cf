"""Through the real `datasets`: local copies here, a hub on 127.0.0.1 in a process of its own."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import unquote

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cappy_select import InputError
from cappy_select.data.formats import Problems
from cappy_select.data.readers import read_rows, sniff
from cappy_select.data.sources import (
    BIGBENCH_45,
    T0_BASE,
    HubData,
    load_hub,
    parse_hub,
    read_bigbench45,
    read_t0,
)

MRPC = """dataset: glue
subset: mrpc
templates:
  a: !Template
    answer_choices: no ||| yes
    jinja: "{{sentence1}} Same as: {{sentence2}}? ||| {{ answer_choices[label] }}"
    metadata: !TemplateMetadata
      original_task: true
    name: same
"""
ROWS = [{"sentence1": f"He left at {n}.", "sentence2": "He went.", "label": n % 2, "idx": n} for n in range(6)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def parquet(rows):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_the_lists_are_those_of_the_paper():
    assert len(T0_BASE) == len({data.templates for data in T0_BASE}) == 38
    assert len(BIGBENCH_45) == len({data.subset for data in BIGBENCH_45}) == 45
    assert all(data.name.count("/") == 1 for data in (*T0_BASE, *BIGBENCH_45))
    assert HubData("nyu-mll/glue", "mrpc", "train", "glue/mrpc") in T0_BASE
    assert {data.split for data in BIGBENCH_45} == {"validation"}


def test_hub_names(tmp_path):
    assert parse_hub("hub:org/name") == HubData("org/name")
    assert parse_hub("hub:org/name/sub@test") == HubData("org/name", "sub", "test")
    assert parse_hub("hub:nyu-mll/glue/mrpc@validation") == HubData("nyu-mll/glue", "mrpc", "validation", "glue/mrpc")
    assert parse_hub("hub:glue/mrpc") == HubData("nyu-mll/glue", "mrpc", "train", "glue/mrpc")
    assert parse_hub(f"hub:{tmp_path}@dev") == HubData(str(tmp_path), None, "dev")
    for wrong in ("hub:", "hub:/x", "hub:org/", "hub:a//b"):
        with pytest.raises(InputError, match="is written hub:"):
            parse_hub(wrong)


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_a_file_or_a_folder_stands_in_for_the_hub(tmp_path, kind):
    rows = [{"question": "Q1", "answer": "A1"}, {"question": "Q2", "answer": "A2"}]
    content = {
        "parquet": parquet(rows),
        "jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "csv": "question,answer\nQ1,A1\nQ2,A2\n",
    }[kind]
    file = put(tmp_path / "data" / f"test.{kind}", content)
    for name in (str(file), str(file.parent)):
        table = load_hub(HubData(name, None, "test"), Problems(strict=True))
        assert (table.count(), table.split) == (2, "test")
        fields = {"instruction": "question", "references": "answer"}
        first, second = [i for _, i in read_rows(table, Problems(strict=True), fields=fields, task="qa")]
        assert (first.id, first.split, first.references) == ("qa|test|#1", "test", ("A1",))
        assert second.instruction == "Q2"


def test_what_does_not_load_is_reported_in_one_line(tmp_path):
    problems = Problems()
    put(tmp_path / "script" / "script.py", "")
    put(tmp_path / "bad" / "train.parquet", "no parquet")
    put(tmp_path / "good" / "train.jsonl", '{"x": 1}\n')
    put(tmp_path / "broken" / "train.jsonl", '{"x": \n{"x": 1}\n')
    (tmp_path / "empty").mkdir()
    tries = [
        HubData(str(tmp_path / "script")),
        HubData(str(tmp_path / "bad")),
        HubData(str(tmp_path / "good"), None, "test"),
        HubData(str(tmp_path / "good"), "other"),
        HubData(str(tmp_path / "broken")),
        HubData(str(tmp_path / "empty")),
    ]
    assert [load_hub(data, problems) for data in tries] == [None] * len(tries)
    assert [where for where, _ in problems.listed] == [str(data) for data in tries]
    messages = [message for _, message in problems.listed]
    assert "scripts are no longer supported" in messages[0]
    assert "Parquet magic bytes" in messages[1]
    assert 'Unknown split "test"' in messages[2]
    assert "'other' not found" in messages[3]
    assert all("\n" not in message and len(message) < 330 for message in messages)
    with pytest.raises(InputError, match="does not load"):
        load_hub(tries[0], Problems(strict=True))


@pytest.fixture
def templates(tmp_path):
    put(tmp_path / "templates" / "glue" / "mrpc" / "templates.yaml", MRPC)
    put(tmp_path / "templates" / "rotten_tomatoes" / "templates.yaml", MRPC)
    return tmp_path / "templates"


def test_t0_is_read_from_copies_and_says_what_is_missing(tmp_path, templates):
    put(tmp_path / "copies" / "nyu-mll" / "glue" / "mrpc" / "train.parquet", parquet(ROWS))
    problems, left_out = Problems(), Counter()
    found = list(read_t0(templates, problems, copies=tmp_path / "copies", left_out=left_out))
    assert [(i.task, i.template, i.split) for _, i in found] == [("glue/mrpc", "same", "train")] * 6
    assert found[1][1].id == "glue/mrpc|train|same|#2"
    assert found[1][1].references == ("yes",)
    assert problems.count == 37
    said = dict(problems.listed)
    assert "templates.yaml" in said["hub:nyu-mll/glue/qqp@train"]
    missing = [where for where, message in problems.listed if message == "no copy of it there"]
    assert missing == [f"hub:{tmp_path}/copies/cornell-movie-review-data/rotten_tomatoes@train"]
    drawn = list(read_t0(templates, Problems(), copies=tmp_path / "copies", max_instances=2))
    assert len(drawn) == 2
    with pytest.raises(InputError, match="the folder `templates`"):
        list(read_t0(tmp_path / "none", Problems()))


def test_bigbench45_is_read_from_copies(tmp_path):
    row = {"idx": 3, "inputs": "1+1", "targets": ["2"], "multiple_choice_targets": [], "multiple_choice_scores": []}
    folder = tmp_path / "tasksource" / "bigbench" / "auto_debugging"
    put(folder / "validation-00000-of-00001.parquet", parquet([row]))
    put(folder / "train-00000-of-00001.parquet", parquet([row, row]))
    problems = Problems()
    ((_, only),) = read_bigbench45(problems, copies=tmp_path)
    assert (only.id, only.task, only.split) == ("auto_debugging|validation|#3", "auto_debugging", "validation")
    assert problems.count == 44
    table = load_hub(HubData("tasksource/bigbench", "auto_debugging", "validation"), problems, copies=tmp_path)
    assert sniff(table) == "bigbench"


@contextmanager
def hub_of_scripts(export):
    """A hub whose only data set, org/old, is a script, with a Parquet copy in its own branch."""
    script, copy = "0" * 40, "1" * 40
    commits = {"main": script, script: script, "refs/convert/parquet": copy, copy: copy}
    files = {script: {"old.py": b"raise SystemExit"}, copy: export}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = unquote(self.path.partition("?")[0])
            for start in ("/api/datasets/org/old/tree/", "/datasets/org/old/resolve/", "/api/datasets/org/old"):
                if path.startswith(start):
                    rest = path.removeprefix(start).removeprefix("/revision/") or "main"
                    break
            else:
                return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            revision = max((name for name in commits if rest.startswith(name)), key=len)
            commit, name = commits[revision], rest.removeprefix(revision).strip("/")
            held = files[commit]
            if "/tree/" in start:
                listed = [
                    {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
                    for path, content in held.items()
                    if path.startswith(name)
                ]
                folders = {str(parent) for path in held for parent in PurePosixPath(path).parents} - {"."}
                return self.reply(200, json.dumps(listed + [_folder(path) for path in folders]).encode())
            if start.startswith("/api/"):
                about = {"id": "org/old", "sha": commit, "siblings": [{"rfilename": path} for path in held]}
                return self.reply(200, json.dumps(about).encode())
            if name not in held:
                return self.reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            etag = f'"{hashlib.sha256(held[name]).hexdigest()}"'
            return self.reply(200, held[name], {"ETag": etag, "X-Repo-Commit": commit})

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(200, b"[]")

        def reply(self, status, body, headers=()):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for key, value in dict(headers).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _folder(path):
    return {"type": "directory", "path": path, "oid": "0" * 40}


LOAD = """
import json, sys
from cappy_select.data.formats import Problems
from cappy_select.data.sources import load_hub, parse_hub
problems, counts = Problems(), []
for name in sys.argv[1:]:
    table = load_hub(parse_hub(name), problems)
    counts.append(table and table.count())
print(json.dumps([counts, problems.listed]))
"""


def load_in_process(tmp_path, endpoint, *names, **more):
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", **more}
    env.pop("HF_DATASETS_CACHE", None)
    done = subprocess.run([sys.executable, "-c", LOAD, *names], capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_of_a_script_the_parquet_copy_is_read_each_subset_by_itself(tmp_path):
    export = {"one/train/0000.parquet": parquet(ROWS), "two/train/0000.parquet": parquet(ROWS[:2])}
    with hub_of_scripts(export) as endpoint:
        names = ("hub:org/old/one", "hub:org/old/two", "hub:org/none", "hub:org/old/one@test")
        counts, problems = load_in_process(tmp_path, endpoint, *names)
    assert counts == [6, 2, None, None], problems
    assert [where for where, _ in problems] == ["hub:org/none@train", "hub:org/old/one@test"]
    assert "doesn't exist on the Hub" in problems[0][1]
    assert 'Unknown split "test"' in problems[1][1]


def test_a_script_without_a_copy_and_a_hub_out_of_reach_are_said_in_one_line(tmp_path):
    with hub_of_scripts({}) as endpoint:
        counts, problems = load_in_process(tmp_path, endpoint, "hub:org/old")
    assert counts == [None]
    assert "only a loading script, and its Parquet copy fails too" in problems[0][1]
    counts, problems = load_in_process(tmp_path / "other", endpoint, "hub:org/old", HF_HUB_OFFLINE="1")
    assert counts == [None]
    assert "Couldn't reach 'org/old' on the Hub" in problems[0][1]
    assert "\n" not in problems[0][1]
