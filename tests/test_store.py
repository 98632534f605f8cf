from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cappy_select.ask.recorded import Recorded
from cappy_select.core.errors import InputError
from cappy_select.core.types import Usage
from cappy_select.data.instances import Instance
from cappy_select.data.store import Key, SampleStore


def instance(name="1", instruction="Name a river.", task="rivers") -> Instance:
    return Instance(id=name, task=task, instruction=instruction, references=("The Nile.",))


def key(place=0, model="m", params="{}") -> Key:
    return Key(model, params, place)


def sample(response="The Nile.", **more) -> Recorded:
    return Recorded(model="m", response=response, **more)


@pytest.fixture
def store(tmp_path):
    with SampleStore(tmp_path / "samples.db", write=True) as opened:
        yield opened


def test_what_was_stored_is_there_again(store):
    given = sample(
        sampling={"temperature": 0.7},
        finish_reason="stop",
        usage=Usage(prompt_tokens=3, completion_tokens=2, estimated=True),
        cost=0.25,
        latency_s=1.5,
        logprob_sum=-3.5,
        logprob_mean=-0.5,
        correct=True,
        human=4.3,
    )
    store.add(instance(), [(key(params='{"temperature": 0.7}'), given)])
    with SampleStore(store.path) as reader:
        (stored,) = reader.samples(instance())
        assert stored.sample == given
        ((again, samples),) = reader.instances()
        assert (again, samples) == (instance(), [stored])


def test_a_sample_that_is_there_is_not_replaced(store):
    assert store.add(instance(), [(key(), sample("first"))]) == 1
    assert store.add(instance(), [(key(), sample("second")), (key(1), sample("third"))]) == 1
    assert [stored.sample.response for stored in store.samples(instance())] == ["first", "third"]


@pytest.mark.parametrize("other", [instance(instruction="Name a lake."), instance("2"), instance(task="lakes")])
def test_another_task_id_or_instruction_is_another_instance(store, other):
    store.add(instance(), [(key(), sample())])
    assert store.samples(other) == []
    assert store.keys(other) == set()


def test_a_sample_that_comes_after_all_is_no_failure_any_more(store):
    store.add_failures(instance(), [key(0), key(1)], "server", "down")
    store.add(instance(), [(key(0), sample())])
    assert [(failed.id, failed.key.place, failed.kind) for failed in store.failures()] == [("1", 1, "server")]
    assert store.failed(instance(), {"server"}) == {key(1)}
    assert store.failed(instance(), {"auth"}) == set()


def test_the_money_is_that_of_the_samples_and_of_the_calls_in_vain(store):
    store.add(instance(), [(key(0), sample(cost=0.5)), (key(1), sample(cost=0.25))])
    store.add_recorded([(instance("2"), [(sample(cost=100.0), 0)])])
    store.add_bill("failed calls", "m", 0.125)
    assert store.spent() == 0.875
    store.add(instance(), [(key(2), sample(cost=None))])
    assert store.spent() is None
    with pytest.raises(InputError, match="unknown price"):
        store.spent_towards(1.0)
    assert store.spent_towards(None) == 0.0


def test_the_digest_is_that_of_the_content_not_of_its_order(tmp_path):
    rows = [(instance("1"), key(0)), (instance("1"), key(1)), (instance("2"), key(0))]
    digests = []
    for name, order in [("a", rows), ("b", rows[::-1]), ("c", rows[:2])]:
        with SampleStore(tmp_path / name, write=True) as opened:
            for which, place in order:
                opened.add(which, [(place, sample())])
            digests.append(opened.digest())
    assert digests[0] == digests[1] != digests[2]


def test_a_judgement_changes_the_digest(store):
    store.add(instance(), [(key(), sample())])
    before = store.digest()
    (stored,) = store.samples(instance())
    store.add_judgement(stored.number, "judge", 0.5, cost=0.0)
    assert store.digest() != before
    assert store.judgements(instance(), "judge") == {"The Nile.": 0.5}
    assert store.judgements(instance(), "another") == {}


def test_one_process_writes_at_a_time_and_others_can_read(store):
    store.add(instance(), [(key(), sample())])
    code = (
        "import sys; from cappy_select.data.store import SampleStore\n"
        "print(SampleStore(sys.argv[1]).counts())\n"
        "SampleStore(sys.argv[1], write=True)"
    )
    done = subprocess.run([sys.executable, "-c", code, store.path], capture_output=True, text=True)
    assert done.stdout == "{'m': 1}\n"
    assert "is being written to by another process" in done.stderr


def test_what_is_no_store_of_ours_is_left_as_it_is(tmp_path):
    with pytest.raises(InputError, match="there is no sample store"):
        SampleStore(tmp_path / "none.db")
    text = tmp_path / "text.db"
    text.write_text("not a database, but long enough to look at" * 100)
    other = tmp_path / "other.db"
    sqlite3.connect(other).execute("CREATE TABLE mine (x)").connection.close()
    newer = tmp_path / "newer.db"
    SampleStore(newer, write=True).close()
    sqlite3.connect(newer).execute("PRAGMA user_version=99").connection.close()
    for path in (text, other, newer):
        before = path.read_bytes()
        for write in (False, True):
            with pytest.raises(InputError, match="not a sample store"):
                SampleStore(path, write=write)
        assert path.read_bytes() == before


def test_a_folder_that_can_not_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        SampleStore(tmp_path / "file" / "samples.db", write=True)


def test_a_file_of_rows_is_never_made_a_store(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    for name in ("empty.jsonl", "new.csv", "new.parquet"):
        with pytest.raises(InputError, match="is not a sample store"):
            SampleStore(tmp_path / name, write=True)
    with pytest.raises(InputError, match="there is no sample store"):
        SampleStore(tmp_path / "typo.db", write=True, make=False)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.jsonl"]


def test_a_database_of_others_or_an_empty_file_is_not_taken_over(tmp_path):
    other = sqlite3.connect(tmp_path / "other.db")
    other.executescript("CREATE TABLE mine (x); PRAGMA user_version=1;")
    other.close()
    (tmp_path / "empty.db").write_text("")
    for name, more in [("other.db", {}), ("empty.db", {"make": False})]:
        with pytest.raises(InputError, match="not a sample store"):
            SampleStore(tmp_path / name, write=True, **more)
    with pytest.raises(InputError, match="not a sample store"):
        SampleStore(tmp_path / "empty.db")
    SampleStore(tmp_path / "empty.db", write=True).close()  # one that was killed while it was made


def test_what_is_newly_known_of_a_recorded_answer_is_taken_over(store):
    store.add_recorded([(instance(), [(sample("a"), 0), (sample("b"), 0)])])
    assert store.add_recorded([(instance(), [(sample("a", correct=True), 0)])]) == 0
    assert [found.sample.correct for found in store.samples(instance())] == [True, None]


def test_other_recorded_answers_are_added_and_the_same_ones_are_not(store):
    once = [(instance(), [(sample("a"), 0), (sample("a"), 1), (sample("b"), 0)])]
    assert store.add_recorded(once) == 3
    assert store.add_recorded(once) == 0
    assert store.add_recorded([(instance(), [(sample("c"), 0), (sample("a"), 0), (sample("a"), 2)])]) == 2
    assert [found.sample.response for found in store.samples(instance())] == ["a", "a", "b", "c", "a"]


def test_a_store_in_a_folder_that_can_not_be_written_is_read(tmp_path):
    """By somebody else, if this is root, who may write anywhere."""
    code = (
        "import os, sys; from cappy_select.data.store import SampleStore\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "print(os.access(os.path.dirname(sys.argv[1]), os.W_OK), SampleStore(sys.argv[1]).counts())"
    )
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    try:
        with SampleStore(folder / "samples.db", write=True) as made:
            made.add(instance(), [(key(), sample())])
        folder.chmod(0o555)
        done = subprocess.run([sys.executable, "-c", code, folder / "samples.db"], capture_output=True, text=True)
        assert done.stdout == "False {'m': 1}\n", done.stderr
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
