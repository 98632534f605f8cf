from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cappy_select import BundleError, InputError, Scorer
from cappy_select.bundle.bundle import load_bundle
from cappy_select.bundle.writing import new_folder
from cappy_select.core import BundleDamaged, BundleFormatError, BundleNotFound
from cappy_select.scorer.session import cgroup_quota


@pytest.fixture
def bundle(bundles, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(bundles["bert"].path, tmp_path / "bundle")


def edit(folder, **changes):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def damage_model(folder):
    raw = bytearray((folder / "model.onnx").read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / "model.onnx").write_bytes(raw)


CASES = {
    "a damaged model": (damage_model, BundleDamaged, "model.onnx is damaged"),
    "a cut tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), BundleDamaged, "tokenizer.json is damaged"),
    "a missing model": (lambda f: (f / "model.onnx").unlink(), BundleDamaged, "model.onnx is missing"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), BundleNotFound, "has no manifest.json"),
    "a newer format": (lambda f: edit(f, format_version=2), BundleFormatError, "bundle format 2.*upgrade"),
    "an unknown key": (lambda f: edit(f, surprise=1), BundleFormatError, "surprise"),
    "a window of nothing": (lambda f: edit(f, max_length=0), BundleFormatError, "max_length"),
    "no JSON": (lambda f: (f / "manifest.json").write_text("not json"), BundleFormatError, "JSON"),
    "a list": (lambda f: (f / "manifest.json").write_text("[]"), BundleFormatError, "malformed"),
    "other files": (lambda f: edit(f, files={}), BundleFormatError, "must list model.onnx"),
    "a manifest nested without end": (
        lambda f: (f / "manifest.json").write_text("[" * 100_000), BundleFormatError, "JSON",
    ),
    "a file outside": (
        lambda f: edit(f, files={"../x": {"sha256": "0" * 64, "size_bytes": 1}}), BundleFormatError, "must list",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_bundle_that_cannot_be_used_is_one_clear_error(bundle, case):
    break_it, error, message = CASES[case]
    break_it(bundle)
    with pytest.raises(error, match=message):
        Scorer.load(bundle)


@pytest.mark.parametrize("case", ["a damaged model", "a newer format", "no manifest"])
def test_the_command_line_exits_with_2_and_no_traceback(bundle, case):
    CASES[case][0](bundle)
    command = [sys.executable, "-m", "cappy_select", "rank", "q", "a", "b", "--scorer", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("cappy: ")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="the system has no /dev/fd")
def test_what_was_hashed_is_what_is_loaded_even_if_it_is_replaced_meanwhile(bundle):
    """As by an export into the same folder."""
    content = (bundle / "model.onnx").read_bytes()
    with load_bundle(bundle).verified("model.onnx") as path:
        (bundle / "other").write_bytes(b"other")
        (bundle / "other").replace(bundle / "model.onnx")
        assert path.read_bytes() == content


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="the system has no /dev/fd")
def test_a_model_with_weights_in_a_file_of_its_own_is_refused(bundle):
    """No manifest lists that file, so nothing would verify it."""
    import hashlib

    import onnx

    model = onnx.load(bundle / "model.onnx")
    onnx.save(model, bundle / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=64)
    raw = (bundle / "model.onnx").read_bytes()
    record = {"sha256": hashlib.sha256(raw).hexdigest(), "size_bytes": len(raw)}
    manifest = json.loads((bundle / "manifest.json").read_text())
    edit(bundle, files=manifest["files"] | {"model.onnx": record})
    assert (bundle / "weights.bin").stat().st_size > 1000
    with pytest.raises(BundleDamaged, match="its weights are in a file of their own"):
        Scorer.load(bundle)


def test_a_manifest_whose_hashes_match_a_file_onnxruntime_cannot_read(bundle):
    import hashlib

    (bundle / "model.onnx").write_bytes(b"no onnx")
    manifest = json.loads((bundle / "manifest.json").read_text())
    record = {"sha256": hashlib.sha256(b"no onnx").hexdigest(), "size_bytes": 7}
    edit(bundle, files=manifest["files"] | {"model.onnx": record})
    with pytest.raises(BundleDamaged, match="it is not an ONNX model"):
        Scorer.load(bundle)


def test_a_model_that_is_no_scorer_is_named(bundle):
    import hashlib

    from onnx import TensorProto, helper, save

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)]), bundle / "model.onnx")
    raw = (bundle / "model.onnx").read_bytes()
    record = {"sha256": hashlib.sha256(raw).hexdigest(), "size_bytes": len(raw)}
    manifest = json.loads((bundle / "manifest.json").read_text())
    edit(bundle, files=manifest["files"] | {"model.onnx": record})
    with pytest.raises(BundleDamaged, match=r"is no scorer: it takes \['x'\]"):
        Scorer.load(bundle)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_threads_follow_the_cgroup(tmp_path, files, cores):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert cgroup_quota(tmp_path, "0::/\n") == cores


def test_a_quota_holds_for_the_cgroups_below_it(tmp_path):
    """As of systemd's CPUQuota=, or of a container that sees the host's cgroups."""
    for folder, quota in (("a", "max 100000"), ("a/b", "200000 100000"), ("a/b/c", "400000 100000")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cpu.max").write_text(quota)
    assert cgroup_quota(tmp_path, "0::/a/b/c\n") == 2
    assert cgroup_quota(tmp_path, "0::/a\n") is None
    legacy = tmp_path / "cpu" / "slice"
    legacy.mkdir(parents=True)
    (legacy / "cpu.cfs_quota_us").write_text("300000")
    (legacy / "cpu.cfs_period_us").write_text("100000")
    assert cgroup_quota(tmp_path, "4:memory:/other\n3:cpu,cpuacct:/slice\n0::/\n") == 3


@pytest.mark.parametrize("source", ["nowhere/at/all", "/nonexistent", "cappy-large"])
def test_a_path_that_does_not_exist_says_how_hub_ids_are_written(source):
    with pytest.raises(BundleNotFound, match="hf://org/name"):
        Scorer.load(source)


def test_a_checkpoint_folder_is_told_how_to_become_a_bundle(checkpoints):
    with pytest.raises(BundleNotFound, match=r"cappy export .* OUT"):
        Scorer.load(checkpoints["bert"])


def test_a_revision_of_a_folder_makes_no_sense(bundle):
    with pytest.raises(InputError, match="revision"):
        Scorer.load(bundle, revision="main")


def test_an_existing_path_wins_over_a_hub_id(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf:" / "org").mkdir(parents=True)
    shutil.copytree(bundle, tmp_path / "hf:" / "org" / "name")
    assert Scorer.load("hf://org/name").bundle.manifest.name == "tiny-bert"


def test_the_digest_tells_bundles_apart(bundles):
    assert bundles["bert"].digest != bundles["roberta"].digest


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), new_folder(out) as scratch:
        (scratch / "half").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(out) as scratch:
        (scratch / "model.onnx").write_text("whole")
        assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(InputError, match="exists already"), new_folder(out):
        pass
    assert (out / "model.onnx").read_text() == "whole"


STRANGERS = {
    "a tokenizer alone": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "a folder called model.onnx": lambda folder: (folder / "model.onnx" / "within").mkdir(parents=True),
    "another's manifest": lambda folder: (folder / "manifest.json").write_text('{"name": "an app", "icons": []}'),
    "a manifest of pairs": lambda folder: (folder / "manifest.json").write_text('{"format": 1, "fingerprint": "x"}'),
    "a model without a manifest": lambda folder: (folder / "model.onnx").write_bytes(b"weights"),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_what_only_has_the_names_of_a_bundle_is_not_replaced(tmp_path, what):
    out = tmp_path / "out"
    out.mkdir()
    STRANGERS[what](out)
    before = sorted(out.rglob("*"))
    with pytest.raises(InputError, match="is not replaced"), new_folder(out, overwrite=True):
        pass
    assert sorted(out.rglob("*")) == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_bundle_that_somebody_put_notes_into_meanwhile_is_not_replaced(bundle, tmp_path):
    with pytest.raises(InputError, match="holds other things"), new_folder(bundle, overwrite=True) as scratch:
        (scratch / "model.onnx").write_text("new")
        (bundle / "notes").write_text("mine")
    assert (bundle / "notes").read_text() == "mine"
    assert load_bundle(bundle)
    assert list(tmp_path.iterdir()) == [bundle]


EXPORTING = """
import sys, time
from pathlib import Path
from cappy_select.bundle import new_folder
with new_folder(Path(sys.argv[1]), overwrite=True) as scratch:
    (scratch / "model.onnx").write_text("half")
    print(scratch, flush=True)
    time.sleep(float(sys.argv[2]))
"""


def exporting(out, seconds=100.0):
    command = [sys.executable, "-c", EXPORTING, str(out), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, Path(process.stdout.readline().strip())


def made_long_ago(folder):
    long_ago = time.time() - 10_000
    os.utime(folder, (long_ago, long_ago))


def test_an_export_that_runs_for_hours_is_not_swept_away_by_another(tmp_path):
    process, scratch = exporting(tmp_path / "out", 4)
    made_long_ago(scratch)
    with new_folder(tmp_path / "out") as second:
        assert (scratch / "model.onnx").exists()
        made_long_ago(second)  # and the other way round: within one process
        with new_folder(tmp_path / "out"):
            assert second.exists()
        shutil.rmtree(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    assert process.wait(60) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]  # and not its lock
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_export_left_is_swept_away_by_the_next(tmp_path):
    process, scratch = exporting(tmp_path / "out")
    process.kill()
    process.wait(60)
    made_long_ago(scratch)
    with new_folder(tmp_path / "out"):
        assert not scratch.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_bundle_that_was_aside_when_its_export_was_killed_comes_back(bundle, tmp_path):
    process, scratch = exporting(bundle)
    (tmp_path / ".bundle.partial-aside").mkdir()
    bundle.rename(tmp_path / ".bundle.partial-aside" / "old")
    process.kill()
    process.wait(60)
    for folder in (scratch, tmp_path / ".bundle.partial-aside"):
        made_long_ago(folder)
    with pytest.raises(RuntimeError), new_folder(bundle, overwrite=True):
        raise RuntimeError("this one fails, too")
    assert load_bundle(bundle)
    assert list(tmp_path.iterdir()) == [bundle]


def test_a_manifest_that_promises_more_than_the_model_has(bundle):
    edit(bundle, max_length=4096)
    with pytest.raises(BundleDamaged, match=r"the manifest allows 4096"):
        Scorer.load(bundle).score_detailed([("river " * 3000, "yes")])


def test_every_bundle_error_is_a_bundle_error():
    assert all(issubclass(kind, BundleError) for kind in (BundleDamaged, BundleFormatError, BundleNotFound))
