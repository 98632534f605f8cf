"""What our dependencies would send home by themselves is switched off, and onnxruntime is imported here alone.

Each of them reads its variable when it is imported or first used, so `import cappy_select` sets them, before it
imports any. Who set a variable themselves is respected. `docs/privacy.md` has the whole list, and what is left alone.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

SWITCHES = {
    # From 1.32 on, also on Linux: a device id, CPU, memory and the interpreter's path, sent to Microsoft by every
    # process. `disable_telemetry_events()` comes too late: the first events are on their way at the import.
    "ORT_DISABLE_TELEMETRY": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or its import fetches the price list
    "HF_HUB_DISABLE_TELEMETRY": "1",  # versions of Python, torch and others, with each download
}
_log = logging.getLogger(__name__)


def switch_off() -> None:
    """Set what is not set yet; onnxruntime, if it was faster, is asked to stop, and a warning is logged."""
    early = "onnxruntime" in sys.modules and "ORT_DISABLE_TELEMETRY" not in os.environ
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    if early:
        sys.modules["onnxruntime"].disable_telemetry_events()
        _log.warning(
            "onnxruntime was imported before cappy_select, so what it sends home may be on its way already: import "
            "cappy_select first, or set ORT_DISABLE_TELEMETRY=1 for the process"
        )


def onnxruntime() -> Any:
    """The module; the library, its tests and its benchmarks import it nowhere else."""
    switch_off()  # once more: a process may have cleared its environment
    try:
        import onnxruntime
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C while its C++ part began
            raise error.__cause__ from None
        raise
    return onnxruntime


def onnxruntime_optimizer() -> Any:
    """`onnxruntime.transformers.optimizer`, for the export."""
    onnxruntime()
    from onnxruntime.transformers import optimizer

    return optimizer


switch_off()
