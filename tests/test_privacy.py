"""Nothing is sent home: real processes in a network of their own, with every connection they try written down."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tasks import choice, write

ROOT = Path(__file__).parent.parent
# What turns telemetry off is cleared, and so is CI, which some libraries go by: no user has set any of it.
SET_BY_NOBODY = re.compile(
    r"CI|.*TELEMETRY.*|DO_NOT_TRACK|LITELLM_.*|HF_.*|XDG_CACHE_HOME|.*_API_KEY|JAX_.*|LANGSMITH.*|LANGCHAIN.*"
)
LOOPBACK_UP = """
import fcntl, socket, struct, sys, time
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh", b"lo", 0x41))  # SIOCSIFFLAGS: up and running
def cappy(*arguments):
    from cappy_select.cli import main
    sys.argv = ["cappy", *arguments]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, ended.code
"""


def attempts(script: str, tmp_path: Path, **settings: str) -> tuple[list[str], list[str]]:
    """The connections that a script tries to make, but to this machine, and the files that it leaves at home."""
    apart = ["unshare", "--net"] if not os.geteuid() else ["unshare", "--net", "--map-root-user"]
    for tool, command in (("unshare", [*apart, "true"]), ("strace", ["strace", "-f", "-e", "trace=connect", "true"])):
        if not shutil.which(tool) or subprocess.run(command, capture_output=True).returncode:
            pytest.skip(f"{tool} is missing, or not allowed here")
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not SET_BY_NOBODY.fullmatch(name)}
    environment |= {"HOME": str(home), "JAX_PLATFORMS": "cpu"} | settings
    traced = ["strace", "-f", "-qq", "-e", "trace=connect", "-o", str(trace)]
    code = LOOPBACK_UP + textwrap.dedent(script)
    done = subprocess.run(
        [*apart, *traced, sys.executable, "-c", code],
        capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    away = [line for line in trace.read_text().splitlines() if "AF_INET" in line]
    left = sorted(str(path.relative_to(home)) for path in home.rglob("*") if path.is_file())
    return [line for line in away if '"127.' not in line and '"::1"' not in line], left


VERBS = {
    "rank": "cappy('rank', 'Is fire hot?', 'yes', 'no'); time.sleep(3)",
    "score": "cappy('score', 'Is fire hot?', 'yes'); time.sleep(1)",
    "demo": "cappy('demo')",
    "importing": "import cappy_select, langchain_cappy, litellm_cappy; time.sleep(1)",
    "importing onnxruntime later": "import cappy_select, onnxruntime; time.sleep(2)",
    "selecting": """
        from cappy_select import ReplayProvider, Selector
        print(Selector([ReplayProvider("rows.jsonl")], samples=1).select("Is fire hot?").text)
    """,
    "counting tokens": """
        from cappy_select import LiteLLMProvider, OpenAIProvider
        for provider in (LiteLLMProvider("anthropic/claude-haiku-4-5"), OpenAIProvider("m", api_base="http://x/v1")):
            print(provider.count_tokens([{"role": "user", "content": "Is fire hot?"}]))
    """,
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_connects_to_nobody_and_leaves_nothing_at_home(verb, tmp_path):
    row = {"id": "1", "instruction": "Is fire hot?", "candidates": [{"model": "m", "response": "yes"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    assert attempts(VERBS[verb], tmp_path) == ([], [])


@pytest.mark.slow
def test_the_offline_line_connects_to_nobody(tmp_path, checkpoints, recipe):
    write(tmp_path / "tasks.jsonl", [choice(number) for number in range(6)])
    away, left = attempts(
        f"""
        cappy("export", {str(checkpoints["bert"])!r}, "bundle", "--precision", "int8")
        cappy("build", "tasks.jsonl", "--out", "pairs")
        cappy("train", {str(recipe)!r}, "--out", "run", "--set", "updates=2")
        """,
        tmp_path,
    )
    assert away == []
    assert not [name for name in left if "onnxruntime" in name]


def test_the_trace_sees_who_phones_home(tmp_path):
    """Else the tests above would hold for any process."""
    away, _ = attempts("socket.socket().connect_ex(('192.0.2.1', 443))", tmp_path)
    assert len(away) == 1


def test_who_set_a_switch_is_respected():
    script = "import os, cappy_select; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "0"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "0"


def test_a_process_that_imported_onnxruntime_first_is_warned_once():
    script = """
        import os; del os.environ["ORT_DISABLE_TELEMETRY"]; os.environ["CI"] = "1"  # so that nothing is sent here
        import onnxruntime, logging
        logging.basicConfig(format="%(name)s %(message)s")
        from cappy_select import Scorer
        Scorer.load(); Scorer.load()
    """
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stderr.count("import cappy_select first") == 1
    assert done.stderr.startswith("cappy_select.core.telemetry_off ")


def test_onnxruntime_is_imported_in_one_place():
    importing = re.compile(r"^\s*(import|from)\s+onnxruntime", re.MULTILINE)
    files = [file for name in ("cappy_select", "adapters", "benchmarks", "recipes", "tests", "examples")
             for file in (ROOT / name).rglob("*.py")]  # fmt: skip
    assert len(files) > 200
    found = {file.relative_to(ROOT).as_posix() for file in files if importing.search(file.read_text("utf-8"))}
    assert found <= {"cappy_select/core/telemetry_off.py", "tests/test_privacy.py"}  # in the child above


def test_the_page_on_privacy_names_every_switch():
    from cappy_select.core.telemetry_off import SWITCHES

    page = (ROOT / "docs" / "privacy.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in SWITCHES)
