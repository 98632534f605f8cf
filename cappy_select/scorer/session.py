"""The model at run time: padded batches of token ids in, one float32 score a row out."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cappy_select.bundle.bundle import Bundle
from cappy_select.bundle.manifest import MODEL
from cappy_select.core.errors import BundleDamaged, InputError
from cappy_select.core.fork import starts_anew_in_child
from cappy_select.core.telemetry_off import onnxruntime
from cappy_select.scorer.encoding import Ids
from cappy_select.scorer.graph import Refused, check_graph
from cappy_select.scorer.memory import bound_memory
from cappy_select.scorer.native import Exiting, interruptible, native_call
from cappy_select.scorer.planning import padded_length

_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
# The first computes while a model is loaded, outside the bound on memory. What an export writes has nothing left to
# fold: scores and speed are the same without. The second lays out convolutions, which encoders hardly have, and
# onnxruntime 1.32 crashes in it on DeBERTa in fp16.
_LEFT_OUT = ["ConstantFolding", "NchwcTransformer"]


class Session:
    """An onnxruntime session over a bundle's model. Safe to share between threads."""

    def __init__(self, bundle: Bundle, *, threads: int, providers: Sequence[Any] | None = None) -> None:
        ort = onnxruntime()
        wanted = ["CPUExecutionProvider"] if providers is None else providers
        names = []
        if isinstance(wanted, Sequence) and not isinstance(wanted, str):
            names = [provider[0] if isinstance(provider, tuple) and provider else provider for provider in wanted]
        if not names or not all(name in ort.get_available_providers() for name in names):
            raise InputError(
                f"providers must be a list of this onnxruntime's execution providers "
                f"({', '.join(ort.get_available_providers())}), got {providers!r}"
            )
        self.providers = [str(name) for name in names]
        self._bundle, self._threads, self._wanted = bundle, threads, list(wanted)
        self._lock, self._session = threading.Lock(), self._loaded()
        starts_anew_in_child(self)
        self._inputs = {node.name for node in self._session.get_inputs()}
        outputs = [node.name for node in self._session.get_outputs()]
        if not {"input_ids", "attention_mask"} <= self._inputs <= _INPUTS or outputs != ["score"]:
            raise BundleDamaged(
                f"{bundle.path / MODEL} is no scorer: it takes {sorted(self._inputs)} and gives {outputs}, "
                f"expected {sorted(_INPUTS)} and ['score']"
            )
        self._max_length = bundle.manifest.max_length

    def _loaded(self) -> Any:
        ort = onnxruntime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 4  # what goes wrong is raised
        # Threads spin while a batch runs and sleep between batches: a server at rest uses no core.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.load_model_format", "ONNX")  # what `check_graph` reads, whatever else
        bound_memory(ort, options)
        with self._bundle.verified(MODEL) as path:
            try:
                if not self._bundle.is_embedded:
                    check_graph(path)
                return interruptible(
                    lambda: ort.InferenceSession(path, options, providers=self._wanted, disabled_optimizers=_LEFT_OUT),
                    stop=lambda: _give_up(options),
                )
            except Refused as error:
                raise BundleDamaged(
                    f"{self._bundle.path / MODEL} is no model that `cappy export` writes, and is not run: {error}"
                ) from error
            except Exiting:
                raise
            except Exception as error:  # onnxruntime's exceptions share no public base class
                raise BundleDamaged(
                    f"{self._bundle.path / MODEL} can't be loaded by onnxruntime {ort.__version__}: {error}"
                ) from error

    def start_anew(self) -> None:
        """In a forked child: onnxruntime's threads are not there, and its locks may be held by them."""
        _abandoned.append(self._session)
        self._lock, self._session = threading.Lock(), None

    @property
    def exact(self) -> bool:
        """Whether a pair's score is the same, bit for bit, in every batch: so it is on a CPU."""
        return self.providers == ["CPUExecutionProvider"]

    def run(self, rows: Sequence[tuple[Ids, Ids]]) -> npt.NDArray[np.float32]:
        """Scores of a batch of (ids, type ids), in its order: float32[rows]. Rows are padded on the right."""
        longest = min(padded_length(max(len(row[0]) for row in rows)), self._max_length)
        ids = np.zeros((len(rows), longest), np.int64)
        types = np.zeros_like(ids)
        mask = np.zeros_like(ids)
        for number, (row_ids, row_types) in enumerate(rows):
            ids[number, : len(row_ids)] = row_ids
            types[number, : len(row_ids)] = row_types
            mask[number, : len(row_ids)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        with self._lock:
            session = self._session = self._session or self._loaded()
        options = onnxruntime().RunOptions()
        try:
            with native_call(stop=lambda: setattr(options, "terminate", True)):  # ends behind the node that runs
                (scores,) = session.run(["score"], {name: feeds[name] for name in self._inputs}, options)
        except Exiting:
            raise
        except Exception as error:
            raise BundleDamaged(
                f"the model can't score {len(rows)} rows of {longest} tokens (the manifest allows {self._max_length}): "
                f"{error}"
            ) from error
        if np.shape(scores) != (len(rows),):
            raise BundleDamaged(
                f"the model gives scores of shape {np.shape(scores)} for {len(rows)} rows: expected one each"
            )
        return np.asarray(scores, np.float32)


def _give_up(options: Any) -> None:
    if hasattr(options, "set_load_cancellation_flag"):  # else the load is waited for
        options.set_load_cancellation_flag(True)


_abandoned: list[Any] = []  # to free one would wait for threads that do not exist


def usable_cores() -> int:
    """Cores this process may use: its affinity, and its cgroup's quota (a container's `--cpus`), rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        own = Path("/proc/self/cgroup").read_text()
    except OSError:
        own = ""
    return max(1, min(cores, cgroup_quota(Path("/sys/fs/cgroup"), own) or cores))


def cgroup_quota(root: Path, own: str) -> int | None:
    """Cores of the narrowest CPU quota that holds for a process; None when there is none.

    Args:
        root: Where the cgroups are mounted, version 1 or 2.
        own: The process's `/proc/self/cgroup`; a quota of any cgroup above its own holds too.
    """
    folders = {root, root / "cpu"}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        base = root / "cpu" if "cpu" in controllers.split(",") else root
        if not controllers or base != root:
            parts = Path(path.lstrip("/")).parts
            folders |= {base.joinpath(*parts[:count]) for count in range(len(parts) + 1)}
    return min((quota for folder in folders if (quota := _quota(folder)) is not None), default=None)


def _quota(folder: Path) -> int | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    return None if quota in ("max", "-1") else -(-int(quota) // int(period))
