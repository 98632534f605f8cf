"""The `cappy` command, run within the tests' own process: what it imports is imported once for all of them.

That a real process does the same, the tests with `process` say, and those that close its streams or kill it.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cappy_select.cli import main

Run = Callable[..., subprocess.CompletedProcess[str]]


def process(
    *arguments: object, stdin: str | None = None, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """What `cappy ARGUMENTS` writes and returns as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "cappy_select", *map(str, arguments)],
        capture_output=True,
        text=True,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        cwd=cwd,
        env=os.environ | env,
        timeout=120,
    )


def ok(*arguments: object, run: Run | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """What a command that must succeed writes."""
    done = (run or cappy)(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return done


def cappy(
    *arguments: object, stdin: str | bytes | None = None, cwd: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """What `cappy ARGUMENTS` writes and returns."""
    given = stdin.encode() if isinstance(stdin, str) else stdin or b""
    streams = {name: io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for name in ("stdout", "stderr")}
    before = Path.cwd()
    try:
        if cwd is not None:
            os.chdir(cwd)
        with (
            patch.dict(os.environ, env),
            patch.object(sys, "argv", ["cappy", *map(str, arguments)]),
            patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), "utf-8")),
            patch.multiple(sys, **streams),
            warnings.catch_warnings(),
        ):
            try:
                main()
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        os.chdir(before)
    written = {name: stream.buffer.getvalue().decode() for name, stream in streams.items()}
    return subprocess.CompletedProcess(list(map(str, arguments)), code, **written)
