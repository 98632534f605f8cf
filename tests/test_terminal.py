"""What is shown to a person commands no terminal and forges nothing; a pipe gets every word as it is."""

import io
import json
import os
import pty
import select
import subprocess
import sys

import pytest
from loopback import Reply
from tasks import write

from cappy_select.cli.output import note, print_table, progress
from cappy_select.core.terminal import HarmlessStream, harmless, raw

CAPPY = [sys.executable, "-m", "cappy_select"]
# Sets a title, fills the clipboard, clears; C1; turns round; hides; markup of a library.
EVIL = "\x1b]0;t\x07\x1b]52;c;eA==\x07\x1b[2J\x9b5n\u202eabc\u2066\U000e0041\r[red]x[/red]\x7f"
RAW = [b"\x1b]0;t", b"\x1b]52", b"\x1b[2J", b"\x9b5n".decode("latin1").encode(), "\u202e".encode(), "\u2066".encode(),
       "\U000e0041".encode(), b"\x7f"]  # fmt: skip


def on_a_terminal(*arguments: str, folder) -> bytes:
    master, slave = pty.openpty()
    environment = os.environ | {"OPENAI_API_KEY": "k" * 20, "TERM": "xterm-256color", "COLUMNS": "300"}
    running = subprocess.Popen(
        [*CAPPY, *arguments], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env=environment, cwd=folder
    )
    os.close(slave)
    said = b""
    while select.select([master], [], [], 120)[0]:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        said += piece
    os.close(master)
    running.wait(60)
    return said


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evil")
    row = {
        "id": f"1{EVIL}",
        "task": f"t{EVIL}",
        "instruction": "Name a river.",
        "references": ["Nile"],
        "candidates": [
            {"model": f"m{EVIL}", "response": f"Nile{EVIL}", "correct": True},
            {"model": f"n{EVIL}", "response": "no", "correct": False},
        ],
    }
    write(folder / "rows.jsonl", [row])
    (folder / "bad.jsonl").write_text(json.dumps({"id": f"x{EVIL}"}) + "\n")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["select", "Name a river.", "-m", "replay:rows.jsonl", "-n", "2"],
        ["select", "Name a river.", "-m", "replay:rows.jsonl", "-n", "2", "--json"],
        ["select", "Name a river.", "-m", "replay:rows.jsonl", "-n", "2", "--match", "zzz$", "-v"],
        ["rank", "q", f"a{EVIL}", "b"],
        ["rank", "q", f"a{EVIL}", "b", "--json"],
        ["score", "q", f"a{EVIL}", "b"],
        ["data", "show", "rows.jsonl"],
        ["data", "read", "bad.jsonl", "--format", "instances", "--out", "out.jsonl", "--overwrite"],
        ["data", "show", f"x{EVIL}.jsonl"],
        ["eval", "selection", "rows.jsonl"],
        [f"verb{EVIL}"],
        ["rank", f"--option{EVIL}"],
        ["export", f"folder{EVIL}"],
        ["train", f"recipe{EVIL}.py"],
    ],
    ids=lambda arguments: harmless(" ".join(arguments))[:60],
)
def test_no_verb_passes_a_command_on_to_a_terminal(folder, arguments):
    said = on_a_terminal(*arguments, folder=folder)
    assert said.strip()
    assert [found for found in RAW if found in said] == []


def test_what_a_server_says_of_a_failure_is_shown_harmlessly(folder, loopback):
    loopback.answer = lambda request: Reply(status=400, error=f"bad{EVIL}\ncappy: forged")
    said = on_a_terminal("select", "q", "-m", "openai:x", "--api-base", loopback.base, "-n", "1", folder=folder)
    assert b"bad" in said
    assert [found for found in RAW if found in said] == []
    assert b"\ncappy: forged" not in said.replace(b"\r", b"")


def test_a_pipe_gets_the_winner_verbatim(folder):
    plain = subprocess.run(
        [*CAPPY, "select", "Name a river.", "-m", "replay:rows.jsonl", "-n", "1"],
        capture_output=True, cwd=folder, timeout=120,
    )  # fmt: skip
    assert b"\x1b" not in plain.stderr
    assert plain.stdout == f"Nile{EVIL}\n".encode()


def test_what_harms_is_escaped_as_json_would_and_the_rest_is_left():
    assert harmless("a\x1b[31m\x00\x85\u2028\ud83d\U000e0041\r") == (
        "a\\u001b[31m\\u0000\\u0085\\u2028\\ud83d\\udb40\\udc41\\u000d"
    )
    left = "tab\there\nnext, naïve 日本語 👩\u200d👩\u200d👧 नम\u200dस्ते é"
    assert harmless(left + "\r\n") == left + "\n"
    texts = ["\x9b\u202e", "x\u2066\x7f"]
    assert json.loads(harmless(json.dumps(texts, ensure_ascii=False))) == texts


def test_a_stream_has_no_way_round_but_bars_begin_their_line_anew():
    behind = io.StringIO()
    stream = HarmlessStream(behind)
    print("a\x1bb", file=stream)
    stream.write("\r 50 %\r")
    stream.writelines(["\x07"])
    assert behind.getvalue() == "a\\u001bb\n\r 50 %\\u000d\\u0007"
    assert not hasattr(stream, "buffer")
    assert raw(stream) is behind and raw(behind) is behind  # noqa: PT018


def test_tables_notes_and_bars_take_no_markup(capsys):
    print_table("[red]t[/red]\x1b", ["[b]c[/b]\x1b"], [["[link=x]y[/link]\x1b"]])
    note("[red]n\nsecond")
    with progress("[red]p"):
        pass
    said = capsys.readouterr()
    for text in ("[red]t[/red]\\u001b", "[b]c[/b]\\u001b", "[link=x]y[/link]\\u001b"):
        assert text in said.out
    assert said.err == "cappy: [red]n\n  second\n"
