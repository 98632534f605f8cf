"""The `cappy` command: the only place that prints or makes an exit code. It must never be imported by the others.

Each verb is a module of this package, loaded when it is called. Exit codes: 0 done; 2 a usage error or a
`CappyError` (bad input, a damaged bundle, no answers); 3 stopped before the end, go on with the same command
(`sample`, `adapt`, `data judge`, `eval bigbench`); 1 a defect of ours; 130 interrupted; 143 told to stop by SIGTERM
in a training (`train`, `adapt`, `eval ablation`).
"""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import sys
import warnings
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from cappy_select.core.errors import CappyError, TruncationWarning
from cappy_select.core.terminal import HarmlessStream

if TYPE_CHECKING:
    from cappy_select.core.types import Selection

VERBS = {
    "score": "Score responses to one instruction, or a file of pairs.",
    "rank": "Rank responses to an instruction, best first: classification without an LLM.",
    "select": "Ask models for several answers and print the best one.",
    "export": "Make a bundle of a checkpoint.",
    "demo": "See the online line at work, without a key or a network.",
    "eval": "Measure a scorer.",
    "data": "Make instances of tasks, and look at data.",
    "sample": "Ask LLMs for answers to instances and keep them.",
    "build": "Make scored pairs of instances and samples.",
    "train": "Train a scorer on pairs.",
    "adapt": "Teach a scorer your task, without touching the LLMs.",
}


class _Verbs(TyperGroup):
    """Finds a verb's command in its own module, so that `cappy rank` does not load what `demo` needs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"cappy_select.cli.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        command.help = command.help or VERBS[cmd_name]
        return command


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Ask LLMs for several answers, score each on this machine, return the best one unchanged."""
    if version:
        from cappy_select import __version__

        print(f"cappy-select {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """The console script."""
    warnings.simplefilter("ignore", TruncationWarning)  # each verb says it in words
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings")  # LiteLLM's, of a server's odd fields
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # arguments and answers may hold what the terminal can't show
    before = sys.stdout, sys.stderr
    # The one place: a pipe gets every result verbatim, a terminal nothing that commands it.
    if sys.stdout is not None and sys.stdout.isatty():
        sys.stdout = HarmlessStream(sys.stdout)  # all that `print` needs
    if sys.stderr is not None:
        sys.stderr = HarmlessStream(sys.stderr)
    try:
        _run()
    finally:
        sys.stdout, sys.stderr = before


def _run() -> NoReturn:
    if sys.stdout is None:
        _complain("InputError", "standard output is closed: the answer would have nowhere to go")
        sys.exit(2)
    try:
        app()
    except CappyError as error:
        _complain(type(error).__name__, str(error), getattr(error, "selection", None))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `cappy ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        _complain(type(error).__name__, f"the output can't be written: {error.strerror}")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the exit would fail once more
        sys.exit(2)
    except Exception as error:
        if os.environ.get("CAPPY_TRACEBACK"):
            raise
        _complain(type(error).__name__, f"{error} (a defect of cappy-select; CAPPY_TRACEBACK=1 shows where)")
        sys.exit(1)
    sys.exit(0)


def _complain(kind: str, message: str, selection: Selection | None = None) -> None:
    """Say what went wrong; machines get the answers too that were paid for in vain."""
    if "--json" in sys.argv:
        paid = {} if selection is None else {"selection": selection.model_dump(mode="json")}
        print(json.dumps({"error": {"type": kind, "message": message, **paid}}), file=sys.stderr)
    else:
        print(f"cappy: {message}", file=sys.stderr)
