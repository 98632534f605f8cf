"""How a run goes: again, killed, interrupted, on bad input."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time

import pytest
from disk import full_disk
from tasks import COMMAND, choice, content, counted, open_ended, rows_of, write

from cappy_select.core.errors import DataError, InputError
from cappy_select.data.build import build

# -------------------------------------------------------------------------------------------- the same every time


def test_the_number_of_workers_changes_nothing(tasks, store, tmp_path):
    config = {"partitions": 5, "rows_per_shard": 60, "rows": 500, "mode": "adapt"}
    for workers in (1, 2, 3):
        build([tasks, tasks], tmp_path / str(workers), config=config, recorded=[store], workers=workers)
    assert content(tmp_path / "1") == content(tmp_path / "2") == content(tmp_path / "3")
    assert len(list((tmp_path / "1").glob("train-*-of-00009.parquet"))) == 9


def test_the_seed_changes_the_order_and_the_draw(tasks, tmp_path):
    first, second = ([*map(str, rows_of(build_into(tasks, tmp_path, seed)))] for seed in (0, 1))
    assert first != second
    assert [row for row in sorted(first) if "'gold'" in row] == [row for row in sorted(second) if "'gold'" in row]
    assert sorted(first) != sorted(second)


def build_into(tasks, tmp_path, seed):
    build([tasks], tmp_path / f"seed{seed}", config={"validation": 0, "seed": seed})
    return tmp_path / f"seed{seed}"


def test_what_is_made_already_is_not_made_again(tasks, tmp_path):
    seen = []
    out = tmp_path / "out"
    first = build([tasks], out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert build([tasks], out, on_progress=lambda *stage: seen.append(stage)) == first
    assert seen == []
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_another_config_another_input_or_a_lost_file_needs_to_be_allowed(tasks, tmp_path):
    out = tmp_path / "out"
    build([tasks], out, config={"rows_per_shard": 50})
    with pytest.raises(InputError, match="--overwrite"):
        build([tasks], out, config={"seed": 1})
    write(tasks, [open_ended(1), open_ended(2)])
    with pytest.raises(InputError, match="--overwrite"):
        build([tasks], out, config={"rows_per_shard": 50})
    manifest = build([tasks], out, overwrite=True, config={"validation": 0})
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "train-00000-of-00001.parquet"]
    (out / "train-00000-of-00001.parquet").unlink()
    with pytest.raises(InputError, match="damaged"):
        build([tasks], out, config={"validation": 0})
    assert build([tasks], out, overwrite=True, config={"validation": 0}) == manifest


def test_a_folder_with_something_else_in_it_is_left_alone(tasks, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not empty"):
            build([tasks], tmp_path / "mine", overwrite=overwrite)
    (tmp_path / "mine" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="no manifest of pairs"):
        build([tasks], tmp_path / "mine", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["manifest.json", "thesis.txt"]


SETTINGS = ["--partitions", "6", "--rows-per-shard", "300", "--rows", "4000", "--mode", "adapt", "--workers", "2"]


@pytest.mark.parametrize(
    "kills", [pytest.param(3, marks=pytest.mark.slow), pytest.param(20, marks=[pytest.mark.slow, pytest.mark.long])]
)
def test_a_killed_run_goes_on_and_gives_the_same_bytes(tmp_path, kills):
    rows = [choice(number) for number in range(400)] + [open_ended(number) for number in range(800)]
    file = write(tmp_path / "tasks.jsonl", rows)
    command = [*COMMAND, file, *SETTINGS]
    started = time.monotonic()
    subprocess.run([*command, "--out", tmp_path / "calm"], check=True, capture_output=True)
    whole = time.monotonic() - started
    draw = random.Random(kills)
    for _ in range(kills):
        process = subprocess.Popen(
            [*command, "--out", tmp_path / "killed"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(draw.uniform(0.2, 0.9) * whole)
        process.kill()
        process.wait()
        assert ends(process.pid), "a worker outlived its parent"
    subprocess.run([*command, "--out", tmp_path / "killed"], check=True, capture_output=True)
    assert content(tmp_path / "killed") == content(tmp_path / "calm")


def ends(session: int) -> bool:
    """All processes of a session, within half a minute."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_a_dead_worker_is_one_clear_error_and_the_next_run_goes_on(tasks, tmp_path):
    code = (
        "import os\ndef score(response, references):\n"
        f"    open({str(tmp_path / 'called')!r}, 'a').write('x')\n"
        "    if os.environ.get('DIE'): os.kill(os.getpid(), 9)\n    return 0.5\n"
    )
    (tmp_path / "deadly.py").write_text(code)
    row = open_ended(1, candidates=[{"model": "x", "response": "The number."}])
    file = write(tmp_path / "one.jsonl", [row, open_ended(2)])
    command = [
        *COMMAND,
        file,
        "--recorded",
        file,
        "--label",
        "call:deadly:score",
        "--workers",
        "2",
        "--partitions",
        "4",
    ]
    command += ["--out", tmp_path / "out", "--validation", "0"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment | {"DIE": "1"}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "a worker process died" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert counted(rows_of(tmp_path / "out"), "kind", "score")["augmented", 0.5] == 1


@pytest.mark.parametrize("seconds", [0, 1], ids=["", "while the workers begin"])
def test_ctrl_c_ends_it_quickly_and_leaves_no_worker(tmp_path, seconds):
    slow = f"import sys, time\nif '--multiprocessing-fork' in sys.argv: time.sleep({seconds})\n"
    (tmp_path / "sitecustomize.py").write_text(slow)
    file = write(tmp_path / "t.jsonl", [open_ended(number) for number in range(3000)])
    process = subprocess.Popen(
        [*COMMAND, file, *SETTINGS, "--out", tmp_path / "out"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    while not (tmp_path / "out" / ".work" / "scattered").exists():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert ends(process.pid)


# ------------------------------------------------------------------------------------------------------ bad input


BAD = [
    "{",
    '{"id": "1", "task": "t", "references": ["x"]}',
    '{"id": "1", "task": "t", "instruction": "i", "references": null}',
    "[]",
    '{"id": "1", "task": "t", "instruction": "", "references": ["x"]}',
    '{"id": "1", "task": "t", "instruction": "i \\ud800", "references": ["x"]}',
]


def test_rows_that_can_not_be_used_are_left_out_counted_and_listed(tmp_path):
    file = write(tmp_path / "t.jsonl", [open_ended(1), *BAD, open_ended(2)])
    (tmp_path / "empty.jsonl").write_text("")
    manifest = build([file, tmp_path / "empty.jsonl"], tmp_path / "out", config={"validation": 0}, workers=2)
    assert manifest["instances"]["read"] == 2
    assert manifest["instances"]["left_out"] == 7
    listed = [json.loads(line) for line in (tmp_path / "out" / "left_out.jsonl").read_text().splitlines()]
    assert [row["where"] for row in listed] == [*(f"t.jsonl:{line}" for line in range(2, 8)), "empty.jsonl"]
    for expected, row in zip(
        ["not JSON", "no 'instruction'", "references", "expected an object", "instruction", "unicode", "no row"],
        listed,
        strict=True,
    ):
        assert expected in row["message"]


@pytest.mark.parametrize(("line", "bad"), list(enumerate(BAD, 2)))
def test_strict_stops_at_the_first_row_that_can_not_be_used(tmp_path, line, bad):
    file = write(tmp_path / "t.jsonl", [open_ended(1), bad, open_ended(2)])
    with pytest.raises(InputError, match=r"t.jsonl:2: "):
        build([file], tmp_path / "out", strict=True, workers=1 + line % 2)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": {"mode": "both"}}, "mode"),
        ({"config": {"mixtrue": "equal"}}, "mixtrue"),
        ({"config": {"label": "rouge_q"}}, "rouge_q"),
        ({"config": {"mixture": {"nothing": 1.0}}}, "nothing"),
        ({"config": {"validation": 1.0}}, "validation"),
        ({"config": {"label": "judge:"}}, "judge:MODEL"),
        ({"config": {"mixture": {"facts": float("nan")}}}, "weights"),
        ({"config": {"mixture": {"facts": "much"}}}, "weights"),
        ({"config": {"mixture": "equal", "rows_per_task": 3}}, "rows_per_task"),
        ({"config": {"mixture": {"facts": 0.0}}}, "weights"),
        ({"config": {"mixture": {"facts": -1.0, "colors": 2.0}}}, "weights"),
        ({"recorded": ["nowhere.db"]}, "nowhere.db"),
        ({"against": ["nowhere.jsonl"]}, "nowhere.jsonl"),
    ],
)
def test_a_setting_that_can_not_be_is_named(tasks, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        build([tasks], tmp_path / "out", **arguments)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.jsonl", "", "none of the input's rows is an instance; the first problem is .*empty.jsonl: .*no row"),
        ("bad.jsonl", "{\n", "none of the input's rows is an instance.*bad.jsonl:1"),
        ("what.doc", "x", "must show in its name"),
        ("cut.jsonl.gz", "\x1f\x8b not gzip", "can't be read"),
    ],
)
def test_a_file_without_instances_is_an_error(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=message):
        build([tmp_path / name], tmp_path / "out")
    with pytest.raises(InputError, match="no such file"):
        build([tmp_path / "nowhere.jsonl"], tmp_path / "out")


def test_a_full_disk_is_one_clear_error_and_the_next_run_goes_on(tasks, tmp_path):
    with full_disk(2000), pytest.raises(DataError, match="can't be written"):
        build([tasks], tmp_path / "out", workers=1)
    build([tasks], tmp_path / "out", workers=1)


def test_shards_of_others_beside_our_pairs_are_left_alone(tasks, tmp_path):
    """Data sets on the hub call theirs just as we do."""
    out = tmp_path / "out"
    build([tasks], out, config={"validation": 0})
    (out / "train-00003-of-00007.parquet").write_bytes(b"of another")
    build([tasks], out, overwrite=True, config={"validation": 0, "seed": 1})
    assert (out / "train-00003-of-00007.parquet").read_bytes() == b"of another"
    assert len(list(out.glob("train-*"))) == 2


def test_what_a_publication_that_was_killed_put_there_is_taken_away_by_another(tasks, tmp_path):
    out = tmp_path / "out"
    older = build([tasks], out, config={"validation": 0, "rows_per_shard": 50})
    names = {file["name"] for file in older["files"]}
    assert len(names) > 2
    (out / ".work").mkdir()
    (out / ".work" / "fingerprint").write_text("of the run that was killed")
    (out / ".work" / "ours.json").write_text(json.dumps(sorted(names)))
    (out / ".work" / "publishing").touch()
    (out / "manifest.json").unlink()
    newer = build([tasks], out, overwrite=True, config={"validation": 0})
    assert {path.name for path in out.iterdir()} == {"manifest.json", *(file["name"] for file in newer["files"])}


def test_a_folder_whose_work_is_another_tools_is_left_alone(tasks, tmp_path):
    work = tmp_path / "mine" / ".work"
    work.mkdir(parents=True)
    (work / "thesis.txt").write_text("years of it")
    (tmp_path / "mine" / "train-00000-of-00001.parquet").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not empty"):
            build([tasks], tmp_path / "mine", overwrite=overwrite)
    assert (work / "thesis.txt").read_text() == "years of it"
