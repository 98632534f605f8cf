"""How fast are pairs scored? Side by side, in one run, on the same weights and the same pairs.

    python benchmarks/scoring.py [--quick] [--json FILE] [--plot FILE.svg]

Needs `pip install -e '.[export,bench]'`. Every engine lives in a process of its own, and they take turns, round by
round, so that what else the machine does meets all of them; a ratio is the median over the rounds. What is
exported is cached (CAPPY_CACHE or the platform's cache folder), outside the repository.

Engines
    crossencoder         sentence-transformers' CrossEncoder.predict as it comes: torch, fp32, batches of 32
    crossencoder-onnx    its ONNX backend (skipped where optimum does not install)
    onnxruntime-batch    onnxruntime on our graph, the 17 pairs of a prompt padded to one batch
    onnxruntime-512      the same, padded to 512 tokens
    cappy                Scorer.score_pairs on all pairs, without a cache (it would answer every later round)
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.metadata
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import platform
import random
import re
import shutil
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cappy_select import Scorer
from cappy_select.bundle.bundle import EMBEDDED, load_bundle
from cappy_select.bundle.hub import cache_folder
from cappy_select.bundle.manifest import MANIFEST, MODEL, TOKENIZER
from cappy_select.core.telemetry_off import onnxruntime
from cappy_select.scorer.encoding import PairEncoder
from cappy_select.scorer.session import usable_cores

SHARED = Path(__file__).resolve().parents[2] / "shared"
ANSWERS = 17  # samples a prompt, as in the paper
Pairs = list[tuple[str, str]]


@dataclass(frozen=True)
class Engine:
    """One way to score, and what it needs."""

    name: str
    precision: str
    start: Callable[[dict[str, Path]], Callable[[Pairs], Any]]  # bundles -> scoring
    answers: int = ANSWERS  # of each prompt; padded to 512, all of them would take too long


# ---------------------------------------------------------------- engines, each in its own process


def crossencoder(folders: dict[str, Path], **options: Any) -> Callable[[Pairs], Any]:
    from sentence_transformers import CrossEncoder

    # A checkpoint saved in fp16 would be run in fp16, which a CPU does several times more slowly.
    exact = {} if options else {"model_kwargs": {"dtype": "float32"}}
    model = CrossEncoder(str(folders["checkpoint"]), device="cpu", local_files_only=True, **exact, **options)
    return model.predict


def crossencoder_onnx(folders: dict[str, Path]) -> Callable[[Pairs], Any]:
    return crossencoder(folders, backend="onnx")


def padded(width: int | None) -> Callable[[dict[str, Path]], Callable[[Pairs], Any]]:
    def start(folders: dict[str, Path]) -> Callable[[Pairs], Any]:
        ort = onnxruntime()

        bundle = load_bundle(folders["fp32"])
        encoder = PairEncoder.of(bundle)
        options = ort.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        session = ort.InferenceSession(bundle.path / MODEL, options, providers=["CPUExecutionProvider"])
        names = {node.name for node in session.get_inputs()}

        def batch(texts: Pairs) -> Any:
            tokens = list(encoder.tokens(text for pair in texts for text in pair))
            rows = [encoder.join(encoder.pair(*both)) for both in zip(tokens[::2], tokens[1::2], strict=True)]
            shape = len(rows), width or max(len(ids) for ids, _ in rows)
            feeds = {name: np.zeros(shape, np.int64) for name in ("input_ids", "token_type_ids", "attention_mask")}
            for number, (ids, types) in enumerate(rows):
                feeds["input_ids"][number, : len(ids)] = ids
                feeds["token_type_ids"][number, : len(ids)] = types
                feeds["attention_mask"][number, : len(ids)] = 1
            return session.run(["score"], {name: feeds[name] for name in names})

        def score(pairs: Pairs) -> None:
            for _, prompt in itertools.groupby(pairs, key=lambda pair: pair[0]):
                batch(list(prompt))

        return score

    return start


def cappy(precision: str) -> Callable[[dict[str, Path]], Callable[[Pairs], Any]]:
    return lambda folders: Scorer.load(folders[precision], cache=False).score_pairs


ENGINES = [
    Engine("crossencoder", "fp32", crossencoder),
    Engine("crossencoder-onnx", "fp32", crossencoder_onnx),
    Engine("onnxruntime-batch", "fp32", padded(None)),
    Engine("onnxruntime-512", "fp32", padded(512), answers=4),
    Engine("cappy", "fp32", cappy("fp32")),
    Engine("cappy", "int8", cappy("int8")),
]


def serve(pipe: Any, number: int, folders: dict[str, Path]) -> None:
    """In the engine's process: time the scoring of the pairs that come, until none do; then say what memory it took."""
    warnings.simplefilter("ignore")
    try:
        score = ENGINES[number].start(folders)
        score([("Which two rivers?", "The Marañón and the Ucayali.")])  # the first is slower for everyone
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}".splitlines()[0])
        return
    pipe.send(None)
    while pairs := pipe.recv():
        started = time.perf_counter()
        score(pairs)
        pipe.send(time.perf_counter() - started)
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    pipe.send(round(int(peak.group(1)) / 1024) if peak else None)


# ---------------------------------------------------------------- models


def checkpoint_of(model: str, cache: Path) -> Path:
    """A torch checkpoint of the model, made when there is none."""
    if model == "default" and (SHARED / "models" / "bootstrap").is_dir():
        return SHARED / "models" / "bootstrap"
    folder = cache / model / "checkpoint"
    if not (folder / "config.json").exists():
        import torch
        import transformers

        # The tokenizer is cappy-mini's in any case: it gives the pairs their real lengths.
        torch.manual_seed(0)
        if model == "default":
            shape = transformers.BertConfig(
                vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12,
                intermediate_size=1536, num_labels=1,
            )  # fmt: skip
            made: Any = transformers.BertForSequenceClassification(shape)
        else:
            large = transformers.RobertaConfig(
                vocab_size=50265, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16,
                intermediate_size=4096, max_position_embeddings=514, type_vocab_size=1, num_labels=1,
                pad_token_id=0, layer_norm_eps=1e-5,
            )  # fmt: skip
            made = transformers.RobertaForSequenceClassification(large)
        partial = folder.with_name("checkpoint.partial")
        made.save_pretrained(partial)
        shutil.copyfile(EMBEDDED / TOKENIZER, partial / TOKENIZER)
        (partial / "tokenizer_config.json").write_text(
            json.dumps({
                "tokenizer_class": "BertTokenizer", "model_max_length": 512,
                "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]",
                "mask_token": "[MASK]",
            })
        )  # fmt: skip
        partial.rename(folder)
    return folder


def bundles_of(model: str, cache: Path) -> dict[str, Path]:
    from cappy_select import export

    folders = {"checkpoint": checkpoint_of(model, cache)}
    weights = folders["checkpoint"] / "model.safetensors"
    made_by = [Path(export.__file__).with_name(f"{name}.py") for name in ("checkpoint", "graph", "cpu", "quantize")]
    key = hashlib.sha256(b"".join(file.read_bytes() for file in made_by) + str(weights.stat().st_size).encode())
    for precision in ("fp32", "int8"):
        folders[precision] = cache / model / f"{precision}-{key.hexdigest()[:8]}"
        if not (folders[precision] / MANIFEST).exists():
            print(f"exporting {model} in {precision}, once", file=sys.stderr)
            export.export_checkpoint(folders["checkpoint"], folders[precision], precision=precision)
    return folders


# ---------------------------------------------------------------- workloads


def prompts(number: int, candidates: Path) -> Iterator[tuple[str, list[str]]]:
    """Real prompts, each with 17 different answers to prompts of its kind; or texts of such lengths."""
    files = [candidates / f"{name}.jsonl.gz" for name in ("gsm8k", "trivia_qa", "bbh")]
    rng = random.Random(0)
    if not all(file.exists() for file in files):
        words = ("the", "council", "voted", "on", "repairs", "of", "a", "bridge", "seven", "dollars", "each", "year")

        def text(mean: float) -> str:
            return " ".join(rng.choices(words, k=max(1, round(rng.lognormvariate(np.log(mean), 0.6)))))

        for _ in range(number):
            yield text(45), [text(50) for _ in range(ANSWERS)]
        return
    kinds = []
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            kinds.append([json.loads(line) for line in lines])
    for count in range(number):
        rows = kinds[count % len(kinds)]
        row = rng.choice(rows)
        answers = dict.fromkeys(answer["response"] for answer in row["candidates"])
        while len(answers) < ANSWERS:
            answers[rng.choice(rng.choice(rows)["candidates"])["response"]] = None
        yield row["instruction"], rng.sample(list(answers), ANSWERS)


def workload(name: str, number: int, candidates: Path) -> Pairs:
    pairs = []
    for instruction, answers in prompts(number, candidates):
        if name == "repeats":  # a third of them, as one model at low temperature gives
            answers = answers[: ANSWERS - ANSWERS // 3] + answers[: ANSWERS // 3]
        pairs += [(instruction, answer) for answer in answers]
    return pairs


# ---------------------------------------------------------------- arithmetic


def flops(bundle: Path, pairs: Pairs) -> float:
    """Multiplications and additions that the encoder can't avoid for these pairs, no padding counted."""
    loaded = load_bundle(bundle)
    layers, width = map(int, re.findall(r"\d+", loaded.manifest.architecture)[-2:])
    encoder = PairEncoder.of(loaded)
    tokens = list(encoder.tokens(text for pair in pairs for text in pair))
    lengths = [encoder.pair(*both).length for both in zip(tokens[::2], tokens[1::2], strict=True)]
    return float(sum(layers * (24 * n * width**2 + 4 * n**2 * width) for n in lengths))


class Gemm:
    """This machine's rate of matrix products as onnxruntime has them: [1024, width] @ [width, 4 * width]."""

    ROWS = 1024

    def __init__(self, bundle: Path) -> None:
        ort = onnxruntime()
        from onnx import TensorProto, helper, numpy_helper

        width = int(re.findall(r"\d+", load_bundle(bundle).manifest.architecture)[-1])
        rng = np.random.default_rng(0)
        weight = rng.standard_normal((width, 4 * width)).astype(np.float32)
        self.flop = 2 * self.ROWS * width * 4 * width
        scales = np.full(4 * width, 0.03, np.float32)
        graphs = {
            "fp32": (TensorProto.FLOAT, helper.make_node("MatMul", ["x", "w"], ["y"]), {"w": weight}),
            "int8": (
                TensorProto.UINT8,
                helper.make_node(
                    "MatMulIntegerToFloat", ["x", "w", "one", "scales", "zero"], ["y"], domain="com.microsoft"
                ),
                {
                    "w": np.clip(np.rint(weight / 0.03), -64, 64).astype(np.int8),
                    "one": np.float32(1), "scales": scales, "zero": np.uint8(128),
                },
            ),
        }  # fmt: skip
        self.sessions = {}
        for precision, (kind, node, weights) in graphs.items():
            x = helper.make_tensor_value_info("x", kind, ["rows", width])
            y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4 * width])
            tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
            opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
            graph = helper.make_graph([node], "gemm", [x], [y], tensors)
            options = ort.SessionOptions()
            options.intra_op_num_threads = usable_cores()
            content = helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
            dtype = np.float32 if precision == "fp32" else np.uint8
            feed = {"x": rng.integers(1, 255, (self.ROWS, width)).astype(dtype)}
            self.sessions[precision] = ort.InferenceSession(content, options), feed

    def rate(self, precision: str) -> float:
        """Operations a second, over about half a second."""
        session, feed = self.sessions[precision]
        session.run(None, feed)
        times = []
        until = time.perf_counter() + 0.5
        while time.perf_counter() < until:
            started = time.perf_counter()
            session.run(None, feed)
            times.append(time.perf_counter() - started)
        return self.flop / statistics.median(times)


# ---------------------------------------------------------------- the run


def compare(model: str, workloads: dict[str, Pairs], folders: dict[str, Path], rounds: int) -> list[dict[str, Any]]:
    """All engines on all workloads, turn by turn."""
    gemm, workers = Gemm(folders["fp32"]), started(folders)
    results = []
    for name, pairs in workloads.items():
        shares = {engine: [pair for i, pair in enumerate(pairs) if i % ANSWERS < engine.answers] for engine in workers}
        speeds: dict[Engine, list[float]] = {engine: [] for engine in workers}
        rates: dict[str, list[float]] = {"fp32": [], "int8": []}
        for count in range(rounds):
            print(f"{model}, {name}: round {count + 1} of {rounds}", file=sys.stderr)
            for engine, pipe in workers.items():
                pipe.send(shares[engine])
                speeds[engine].append(len(shares[engine]) / pipe.recv())
            for precision, found in rates.items():
                found.append(gemm.rate(precision))
        base = next((found for engine, found in speeds.items() if engine.name == "crossencoder"), None)
        for engine, found in speeds.items():
            each = flops(folders["fp32"], shares[engine]) / len(shares[engine])
            peak = rates[engine.precision]
            results.append({
                "model": model,
                "workload": name,
                "engine": engine.name,
                "precision": engine.precision,
                "pairs_per_s": statistics.median(found),
                "ratio_to_crossencoder": base and statistics.median(a / b for a, b in zip(found, base, strict=True)),
                "gemm_fraction": statistics.median(a * each / b for a, b in zip(found, peak, strict=True)),
                "gemm_gop_per_s": statistics.median(peak) / 1e9,
                "rounds_pairs_per_s": found,
            })  # fmt: skip
    for engine, pipe in workers.items():
        pipe.send(None)
        memory = pipe.recv()
        for row in results:
            if (row["engine"], row["precision"]) == (engine.name, engine.precision):
                row["peak_rss_mib"] = memory
    return results


def started(folders: dict[str, Path]) -> dict[Engine, Any]:
    """The engines that can be had here, each in its process, loaded and warm."""
    context = multiprocessing.get_context("spawn")
    workers = {}
    for number, engine in enumerate(ENGINES):
        ours, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, number, folders), daemon=True).start()
        theirs.close()
        try:
            failure = ours.recv()
        except EOFError:
            failure = "its process died"
        if failure:
            print(f"{engine.name}: skipped: {failure}", file=sys.stderr)
        else:
            workers[engine] = ours
    return workers


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    found = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = set(found.partition("flags")[2].partition("\n")[0].split())
    return {
        "cpu": (re.search(r"model name\s*: (.*)", found) or [None, platform.processor()])[1],
        "int8_instructions": [flag for flag in ("avx2", "avx_vnni", "avx512_vnni", "amx_int8") if flag in flags],
        "threads": usable_cores(),
        **{name: version(name) for name in ("onnxruntime", "torch", "sentence-transformers")},
    }


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def show(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "workload", "engine", "precision", title="pairs scored a second")
    for title in ("pairs/s", "× CrossEncoder", "of GEMM rate", "peak RSS, MiB"):
        table.add_column(title, justify="right")
    for row in results:
        table.add_row(
            *(row[key] for key in ("model", "workload", "engine", "precision")),
            f"{row['pairs_per_s']:.2f}",
            f"{row['ratio_to_crossencoder']:.2f}" if row["ratio_to_crossencoder"] else "–",
            f"{row['gemm_fraction']:.0%}",
            str(row["peak_rss_mib"] or "–"),
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = list(dict.fromkeys((row["model"], row["workload"]) for row in results))
    figure, axes = plt.subplots(1, len(groups), figsize=(3.4 * len(groups), 2.6), squeeze=False)
    for axis, group in zip(axes[0], groups, strict=True):
        rows = [row for row in results if (row["model"], row["workload"]) == group][::-1]
        names = [f"{row['engine']} {row['precision']}" for row in rows]
        values = [row["ratio_to_crossencoder"] or 0 for row in rows]
        colors = ["#2a6f97" if row["engine"] == "cappy" else "#b8c4cc" for row in rows]
        bars = axis.barh(names, values, color=colors)
        axis.bar_label(bars, fmt="%.2f×", padding=2, fontsize=8)
        axis.set_title(", ".join(group), fontsize=9)
        axis.margins(x=0.2)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        if axis is not axes[0][0]:
            axis.set_yticklabels([])
    figure.supxlabel("speed, as a multiple of CrossEncoder's (torch fp32)", fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer pairs, one round, `repeats` for the default only: three minutes once exported",
    )
    parser.add_argument("--models", default="default,roberta-large")
    parser.add_argument("--workloads", default="distinct,repeats")
    parser.add_argument("--candidates", type=Path, default=SHARED / "data" / "candidates", help="recorded answers")
    parser.add_argument("--rounds", type=int, help="default: 7 and 3, or 1 with --quick")
    parser.add_argument("--json", type=Path, help="write the figures as a list of objects")
    parser.add_argument("--plot", type=Path, help="write a bar chart (SVG or PNG)")
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    cache = cache_folder() / "benchmarks"
    real = (options.candidates / "gsm8k.jsonl.gz").exists()
    print(json.dumps(machine()), file=sys.stderr)
    print(f"prompts and answers: {'recorded' if real else 'generated'}", file=sys.stderr)
    results = []
    for model in options.models.split(","):
        folders = bundles_of(model, cache)
        number = {"default": 12, "roberta-large": 3}[model] // (3 if options.quick else 1)
        names = ["distinct"] if options.quick and model != "default" else options.workloads.split(",")
        workloads = {name: workload(name, number, options.candidates) for name in names}
        rounds = options.rounds or (1 if options.quick else {"default": 7, "roberta-large": 3}[model])
        results += compare(model, workloads, folders, rounds)
        if options.json:  # after every model: a long run may be stopped
            options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.plot:
        plot(results, options.plot)
    show(results)


if __name__ == "__main__":
    main()
