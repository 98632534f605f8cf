"""Files of recorded answers with whatever stands in them: taken as it is, or one error that names the line."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cappy_select import ReplayProvider
from cappy_select.ask.recorded import read_recorded
from cappy_select.core.errors import InputError
from cappy_select.data.formats import Problems
from cappy_select.data.sample import import_recorded
from cappy_select.data.store import SampleStore

GOOD = '{"id": "g", "instruction": "good", "candidates": [{"model": "m", "response": "fine"}]}'
HUGE = "9" * 400


def row(**more) -> str:
    return json.dumps({"id": "1", "instruction": "q", "candidates": [{"model": "m", "response": "a"} | more]})


def raw(fields: str) -> str:
    return f'{{"id": "1", "instruction": "q", "candidates": [{{"model": "m", "response": "a", {fields}}}]}}'


REFUSED = [
    row(model=5),
    row(response=None),
    row(response=["a"]),
    row(cost="0.5"),
    row(cost=True),
    row(cost=-1),
    row(cost=1e7),
    raw('"cost": NaN'),
    raw('"cost": Infinity'),
    raw(f'"cost": {HUGE}'),
    raw('"latency_s": Infinity'),
    row(human="4"),
    row(human=True),
    raw('"human": NaN'),
    row(correct="perhaps"),
    row(usage=[]),
    row(usage={"prompt_tokens": -1}),
    raw(f'"usage": {{"prompt_tokens": {HUGE}}}'),
    raw('"x": ' + "[" * 5000 + "]" * 5000),
    raw(f'"human": {"9" * 5000}'),
    "[]",
    "null",
    "{",
    '{"id": "1", "instruction": "q", "candidates": {}}',
]


@pytest.mark.parametrize("line", REFUSED, ids=lambda line: line[:90])
def test_a_line_that_can_not_be_is_named(tmp_path, line):
    file = tmp_path / "recorded.jsonl"
    file.write_text(f"{GOOD}\n{line}\n")
    for read in (lambda: list(read_recorded(file)), lambda: ReplayProvider(file)):
        with pytest.raises(InputError, match=r"recorded\.jsonl:2"):
            read()
    problems = Problems()
    with SampleStore(tmp_path / "samples.db", write=True) as store:
        assert import_recorded(file, store, problems) == 1
    assert problems.listed[0][0] == f"{file}:2"


TAKEN = [
    row(response="lone \ud800"),
    row(model="m\udfff", sampling={"x": "\ud800"}, finish_reason="\ud800"),
    row(response="NUL \0"),
    raw('"logprob_sum": NaN, "logprob_mean": -Infinity'),
    raw(f'"sampling": {{"t": NaN, "n": {HUGE}}}'),
    raw('"sampling": ' + '{"a": ' * 150 + "1" + "}" * 150),
    row(finish_reason="x" * 1_000_000),
]


@pytest.mark.parametrize("line", TAKEN, ids=lambda line: line[:90])
def test_what_can_be_held_is_taken_once(tmp_path, line):
    file = tmp_path / "recorded.jsonl"
    file.write_text(f"{line}\n{GOOD}\n")
    assert len(list(read_recorded(file))) == 2
    with SampleStore(tmp_path / "samples.db", write=True) as store:
        assert import_recorded(file, store, Problems()) == 2
        assert import_recorded(file, store, Problems()) == 0
        assert sum(len(samples) for _, samples in store.instances()) == 2
        assert len(store.digest()) == 64


def test_the_command_takes_them_in_without_a_traceback(tmp_path):
    file = tmp_path / "recorded.jsonl"
    file.write_text("\n".join([*TAKEN, *REFUSED]) + "\n")
    command = [
        sys.executable,
        "-m",
        "cappy_select",
        "sample",
        "--recorded",
        file,
        "--store",
        tmp_path / "samples.db",
    ]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recorded"] == len(TAKEN)
    assert "Traceback" not in done.stderr


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(
    ["model", "response", "correct", "human", "sampling", "finish_reason", "usage", "cost", "latency_s", "logprob_sum"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(fields, values, max_size=4))
def test_no_value_in_no_field_is_more_than_an_error(tmp_path, odd):
    file = tmp_path / "recorded.jsonl"
    file.write_text(row(**odd) + "\n")
    with suppress(InputError):
        list(read_recorded(file))
    with SampleStore(tmp_path / "samples.db", write=True) as store:
        import_recorded(file, store, Problems())
        for _, samples in store.instances():
            assert samples
