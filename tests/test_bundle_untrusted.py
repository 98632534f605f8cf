"""Bundles that somebody else made: what they hold is checked before it runs, and on the bytes that are loaded."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cappy_select import Scorer
from cappy_select.bundle.bundle import EMBEDDED, load_bundle
from cappy_select.core import BundleDamaged, BundleFormatError
from cappy_select.export import export_checkpoint
from cappy_select.scorer import graph
from cappy_select.scorer.graph import check_graph

INT64, FLOAT, BOOL = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL


def listed(folder: Path) -> Path:
    """The folder, with a manifest that lists the files as they are now."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, record in manifest["files"].items():
        content = (folder / name).read_bytes()
        record |= {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def bundle(bundles, tmp_path):
    return shutil.copytree(bundles["bert"].path, tmp_path / "bundle")


def of_nodes(*nodes, tensors=(), **more) -> onnx.ModelProto:
    """A model that reads the mean of the ids, `mean` [rows], and does something with it."""
    inputs = [
        helper.make_tensor_value_info(name, INT64, ["rows", "tokens"]) for name in ("input_ids", "attention_mask")
    ]
    first = [
        helper.make_node("Cast", ["input_ids"], ["floats"], to=FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[1], keepdims=0),
    ]
    output = [helper.make_tensor_value_info("score", FLOAT, ["rows"])]
    made = helper.make_graph([*first, *nodes], "g", inputs, output, list(tensors))
    return helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=8, **more
    )


def with_model(bundle: Path, model: onnx.ModelProto | bytes) -> Path:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    (bundle / "model.onnx").write_bytes(content)
    return listed(bundle)


# ------------------------------------------------------------------------------------- what is hashed is what is loaded


def test_a_file_that_is_written_into_while_it_is_read_is_loaded_as_it_was_hashed(bundle):
    content = (bundle / "model.onnx").read_bytes()
    with load_bundle(bundle).verified("model.onnx") as path:
        with (bundle / "model.onnx").open("r+b") as file:
            file.write(b"\0" * 1000)
        assert path.read_bytes() == content
    with pytest.raises(BundleDamaged, match="damaged"):
        Scorer.load(bundle)


def test_a_large_model_is_copied_to_the_disk_and_the_copy_is_gone_afterwards(bundle, tmp_path, monkeypatch):
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    monkeypatch.setattr("cappy_select.bundle.bundle._MOST_IN_MEMORY", 1000)
    assert Scorer.load(bundle).score("which river", ["yes"]).shape == (1,)
    assert list((tmp_path / "copies").iterdir()) == []


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_file_that_is_longer_than_the_manifest_says_is_not_read_to_its_end(bundle, name):
    with (bundle / name).open("r+b") as file:
        file.truncate(40 * 2**30)  # takes no place on the disk
    began = time.perf_counter()
    with pytest.raises(BundleDamaged, match=f"{name} is damaged"):
        Scorer.load(bundle)
    assert time.perf_counter() - began < 30


def test_a_manifest_of_a_window_without_end_is_malformed(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"max_length": 10**12}))
    with pytest.raises(BundleFormatError, match="max_length"):
        Scorer.load(bundle)


# ------------------------------------------------------------------------------------------------------- the graph


def subgraph(*names):
    """A body that gives back what it is given."""
    value = helper.make_tensor_value_info
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names[1:]]
    inputs = [value("i", INT64, []), value("go", BOOL, []), value("x", FLOAT, None)][-len(names) :]
    return helper.make_graph(nodes, "body", inputs, [value("go_out", BOOL, []), value("x_out", FLOAT, None)])


def branch(name):
    return helper.make_graph(
        [helper.make_node("Identity", ["mean"], [name])], name, [], [helper.make_tensor_value_info(name, FLOAT, None)]
    )


YES = numpy_helper.from_array(np.array(True), "yes")
FOR_EVER = numpy_helper.from_array(np.array(2**62, np.int64), "for_ever")


def outside() -> TensorProto:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/hostname")
    return tensor


def function() -> onnx.FunctionProto:
    return helper.make_function(
        "ours", "F", ["a"], ["b"], [helper.make_node("Identity", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )


REFUSED = {
    "a loop": (
        of_nodes(helper.make_node("Loop", ["for_ever", "yes", "mean"], ["score"], body=subgraph("i", "go", "x")),
                 tensors=[YES, FOR_EVER]),
        "graph or strings of its own|operator Loop",
    ),
    "a branch": (
        of_nodes(helper.make_node("If", ["yes"], ["score"], then_branch=branch("a"), else_branch=branch("b")),
                 tensors=[YES]),
        "graph or strings of its own|operator If",
    ),
    "chance": (of_nodes(helper.make_node("RandomNormalLike", ["mean"], ["score"])), "operator RandomNormalLike"),
    "an operator of nobody's": (of_nodes(helper.make_node("Mine", ["mean"], ["score"], domain="my.ops")), "my.ops"),
    "another of Microsoft's": (
        of_nodes(helper.make_node("EPContext", ["mean"], ["score"], domain="com.microsoft")),
        "operator com.microsoft.EPContext",
    ),
    "a loop in Microsoft's domain": (
        of_nodes(helper.make_node("BeamSearch", ["mean"], ["score"], domain="com.microsoft")), "BeamSearch",
    ),
    "a data-dependent shape": (of_nodes(helper.make_node("NonZero", ["mean"], ["score"])), "operator NonZero"),
    "strings": (
        of_nodes(helper.make_node("StringNormalizer", ["mean"], ["score"], stopwords=["a"])), "strings of its own|Str",
    ),
    "a function": (of_nodes(helper.make_node("Identity", ["mean"], ["score"]), functions=[function()]), "field 25"),
    "weights elsewhere": (
        of_nodes(helper.make_node("Add", ["mean", "w"], ["score"]), tensors=[outside()]), "a file of their own",
    ),
    "a constant elsewhere": (
        of_nodes(
            helper.make_node("Constant", [], ["c"], value=outside()), helper.make_node("Add", ["mean", "c"], ["score"])
        ),
        "a file of their own",
    ),
    "a domain that is only announced": (
        helper.make_model(of_nodes().graph, opset_imports=[helper.make_opsetid("evil", 1)]), "evil",
    ),
    "onnxruntime's own format": (b"\x18\x00\x00\x00ORTM" + b"\0" * 100, "field 0 of the model"),
    "nothing": (b"", "it is empty"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_model_of_more_than_an_export_writes_is_not_run(bundle, what):
    model, message = REFUSED[what]
    with pytest.raises(BundleDamaged, match=f"is no model that `cappy export` writes.*({message})"):
        Scorer.load(with_model(bundle, model))


def test_a_model_with_the_mark_of_onnxruntimes_own_format_is_read_as_what_was_checked(bundle):
    """That format is no protobuf: its mark, in a name that the file begins with, must not have it read as such."""
    before = Scorer.load(bundle).score("which river", ["yes", "no"])
    marked = b"\x12\x06xxORTM" + (bundle / "model.onnx").read_bytes()  # producer_name
    assert marked[4:8] == b"ORTM"
    assert Scorer.load(with_model(bundle, marked)).score("which river", ["yes", "no"]).tolist() == before.tolist()


@pytest.fixture(scope="module")
def exports(checkpoints, tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("exports")
    kinds = [(kind, precision) for kind in checkpoints for precision in ("fp32", "fp16", "int8")]
    made = [export_checkpoint(checkpoints[kind], root / f"{kind}-{of}", precision=of) for kind, of in kinds]
    return [bundle.path / "model.onnx" for bundle in made]


def test_what_we_export_is_allowed_and_each_of_its_nodes_is_looked_at(exports, tmp_path):
    for path in [*exports, EMBEDDED / "model.onnx"]:
        check_graph(path)
        model = onnx.load(path)
        for place in range(0, len(model.graph.node), 7):
            node = model.graph.node[place]
            was, node.op_type = node.op_type, "Loop"
            (tmp_path / "changed.onnx").write_bytes(model.SerializeToString())
            with pytest.raises(graph.Refused, match="Loop"):
                check_graph(tmp_path / "changed.onnx")
            node.op_type = was


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_bytes_of_any_kind_are_allowed_or_refused_and_nothing_else(exports, tmp_path_factory, data):
    content = bytearray(exports[2].read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 6000) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)))
    file = tmp_path_factory.getbasetemp() / "changed.onnx"
    file.write_bytes(content[:end] if data.draw(st.booleans()) else content)
    with suppress(graph.Refused):
        check_graph(file)


def numbers(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def grown(times: int):
    """Each number combined with each, so many times over."""
    nodes, last = [], "mean"
    for step in range(times):
        nodes += [
            helper.make_node("Reshape", [last, "column"], [f"column{step}"]),
            helper.make_node("Reshape", [last, "row"], [f"row{step}"]),
            helper.make_node("Add", [f"column{step}", f"row{step}"], [f"all{step}"]),
            helper.make_node("Reshape", [f"all{step}", "flat"], [f"flat{step}"]),
        ]
        last = f"flat{step}"
    return nodes, last


def summed(*nodes, last, tensors=()):
    end = [
        helper.make_node("ReduceMax", [last], ["most"], keepdims=0),
        helper.make_node("Add", ["mean", "most"], ["score"]),
    ]
    return of_nodes(*nodes, *end, tensors=tensors)


NODES, LAST = grown(7)
ONES = numpy_helper.from_array(np.ones((2**20, 1), np.float32), "ones")
OTHERS = numpy_helper.from_array(np.ones((1, 2**20), np.float32), "others")
HUGE = {
    "a constant": summed(
        helper.make_node("ConstantOfShape", ["size"], ["big"]), last="big", tensors=[numbers("size", 2**40)]
    ),
    "an expansion": summed(
        helper.make_node("Reshape", ["mean", "column"], ["c"]), helper.make_node("Expand", ["c", "size"], ["big"]),
        last="big", tensors=[numbers("size", 1, 2**40), numbers("column", -1, 1)],
    ),
    "a tiling": summed(
        helper.make_node("Tile", ["mean", "size"], ["big"]), last="big", tensors=[numbers("size", 2**40)]
    ),
    "constants, each with each": summed(
        helper.make_node("Add", ["ones", "others"], ["big"]), last="big", tensors=[ONES, OTHERS]
    ),
    "numbers, each with each, again and again": summed(
        *NODES, last=LAST, tensors=[numbers("column", -1, 1), numbers("row", 1, -1), numbers("flat", -1)]
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HUGE)
def test_a_graph_that_makes_much_of_little_is_an_error_and_takes_no_memory(bundle, what):
    with_model(bundle, HUGE[what])
    script = """
        import re, sys
        from cappy_select import Scorer
        from cappy_select.core import BundleDamaged
        try:
            Scorer.load(sys.argv[1]).score("which river", ["yes", "no", "maybe"])
        except BundleDamaged as error:
            print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), bundle], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4 * 2**20  # KiB


# ------------------------------------------------------------------------------------------------------- interrupts


def test_loading_can_be_interrupted_at_any_moment():
    script = """
        import signal
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from cappy_select import Scorer
        print("ready", flush=True)
        try:
            while True:
                Scorer.load()
        except KeyboardInterrupt:
            print("interrupted")
    """
    for wait_s in (0.05, 0.11, 0.16, 0.31):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(wait_s)
        for _ in range(5):  # Python loses one that comes while a weak reference is cleared
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
                break
        out, errors = process.communicate(timeout=30)
        assert (process.returncode, out.strip()) == (0, "interrupted"), errors


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="looks for copies in memory")
def test_no_copy_is_left_open(bundle):
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        Scorer.load(bundle)
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1
