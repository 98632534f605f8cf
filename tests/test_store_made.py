"""A store that is killed for good while it is made: what is there is no store yet, or a whole one."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys

import pytest

from cappy_select.ask.recorded import Recorded
from cappy_select.core.errors import InputError
from cappy_select.data.instances import Instance
from cappy_select.data.store import Key, SampleStore

ONE = Instance(id="1", task="t", instruction="Name a river.", references=())

# Makes a store in a forked child, kills that after so many microseconds, and opens what is left; again and again.
MAKE_AND_KILL = """
import json, os, random, signal, sys, time
from pathlib import Path
from cappy_select.data.instances import Instance
from cappy_select.data.store import Key, SampleStore
from cappy_select.ask.recorded import Recorded

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
one = Instance(id="1", task="t", instruction="Name a river.", references=())
draw, killed = random.Random(rounds), {"before": 0, "whole": 0}
with SampleStore(folder / "warm.db", write=True):
    pass
took = 0.02
for number in range(rounds):
    path = folder / f"{number}.db"
    for _ in range(draw.choice([1, 1, 2])):  # what one left behind, the next one is killed over
        child = os.fork()
        if not child:
            with SampleStore(path, write=True) as store:
                store.add(one, [(Key("m", "{}", 0), Recorded(model="m", response="The Nile."))])
            os._exit(0)
        until = time.perf_counter() + draw.uniform(0, took)
        quicker = False
        while not quicker and time.perf_counter() < until:
            time.sleep(0.0002)
            quicker = os.waitpid(child, os.WNOHANG)[0] != 0
        if quicker:  # the next ones are killed sooner
            took *= 0.9
            continue
        took *= 1.02
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    killed["whole" if path.exists() else "before"] += 1
    if path.exists():
        with SampleStore(path) as store:
            store.counts()
    with SampleStore(path, write=True) as store:
        store.add(one, [(Key("m", "{}", 1), Recorded(model="m", response="The Volga."))])
        assert "The Volga." in [each.sample.response for each in store.samples(one)]
        assert not Path(f"{path}.new").exists()
print(json.dumps(killed))
"""


def test_a_store_that_is_killed_while_it_is_made_opens_again(tmp_path):
    command = [sys.executable, "-c", MAKE_AND_KILL, tmp_path, "150"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout)
    assert sum(killed.values()) == 150
    assert min(killed.values()) > 0, "all were killed at the same point: the test shows little"


def blank(path):
    """What an earlier version left when it was killed between two of its steps."""
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode=WAL")
    db.close()
    assert path.stat().st_size > 0


def test_a_database_with_nothing_in_it_is_taken_for_one_that_was_killed_while_it_was_made(tmp_path):
    blank(tmp_path / "samples.db")
    with pytest.raises(InputError, match="not a sample store"):
        SampleStore(tmp_path / "samples.db")
    with pytest.raises(InputError, match="not a sample store"):
        SampleStore(tmp_path / "samples.db", write=True, make=False)
    with SampleStore(tmp_path / "samples.db", write=True) as store:
        assert store.add(ONE, [(Key("m", "{}", 0), Recorded(model="m", response="The Nile."))]) == 1


@pytest.mark.parametrize("size", [0, 1, 16, 50, 100, 512, 4000, 4096])
def test_half_a_file_opens_or_is_one_clear_error(tmp_path, size):
    SampleStore(tmp_path / "whole.db", write=True).close()
    half = (tmp_path / "whole.db").read_bytes()[:size]
    (tmp_path / "half.db").write_bytes(half)
    with pytest.raises(InputError, match=r"half\.db"):
        SampleStore(tmp_path / "half.db")
    if size:
        with pytest.raises(InputError, match=r"half\.db"):
            SampleStore(tmp_path / "half.db", write=True)
        assert (tmp_path / "half.db").read_bytes() == half
    else:
        SampleStore(tmp_path / "half.db", write=True).close()


def test_what_lies_beside_a_file_that_is_not_there_is_no_part_of_the_new_store(tmp_path):
    """A write-ahead log of a database that was removed would be played back into the new one."""
    old, path = tmp_path / "old.db", tmp_path / "samples.db"
    with SampleStore(old, write=True) as store:
        store.add(ONE, [(Key("m", "{}", 0), Recorded(model="m", response="of another store"))])
        for end in ("-wal", "-shm"):
            (tmp_path / f"samples.db{end}").write_bytes((tmp_path / f"old.db{end}").read_bytes())
    (tmp_path / "samples.db.new").write_text("half a store")
    with SampleStore(path, write=True) as made:
        assert made.samples(ONE) == []
    assert not (tmp_path / "samples.db.new").exists()


def test_a_store_of_a_newer_version_is_named_as_such_and_left_as_it_is(tmp_path):
    path = tmp_path / "samples.db"
    SampleStore(path, write=True).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=2")
    db.close()
    before = path.read_bytes()
    for write in (False, True):
        with pytest.raises(InputError, match="a newer version reads it"):
            SampleStore(path, write=write)
    assert path.read_bytes() == before


def test_a_store_without_its_version_is_one_clear_error(tmp_path):
    path = tmp_path / "samples.db"
    SampleStore(path, write=True).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=0")
    db.close()
    before = path.read_bytes()
    for write in (False, True):
        with pytest.raises(InputError, match=r"not a sample store of format 1 \(it says 0\)"):
            SampleStore(path, write=write)
    assert path.read_bytes() == before


def test_of_many_processes_that_make_one_store_at_once_each_writes_or_is_told(tmp_path):
    code = (
        "import sys; from cappy_select.data.store import SampleStore; from cappy_select.core.errors import InputError\n"
        "sys.stdin.readline()\n"
        "try: SampleStore(sys.argv[1], write=True).close()\n"
        "except InputError as error: assert 'another process' in str(error), error"
    )
    command = [sys.executable, "-c", code, tmp_path / "samples.db"]
    makers = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for maker in makers:
        maker.stdin.write("\n")
        maker.stdin.flush()
    for maker in makers:
        _, complaint = maker.communicate(timeout=120)
        assert maker.returncode == 0, complaint
    with SampleStore(tmp_path / "samples.db") as store:
        assert store.counts() == {}
