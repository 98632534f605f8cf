from __future__ import annotations

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import cappy_select

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_import_packages_and_the_embedded_bundle(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"cappy_select", "langchain_cappy", "litellm_cappy"}
    bundle = "cappy_select/bundles/cappy-mini/"
    assert {name for name in names if name.startswith(bundle)} == {
        f"{bundle}{file}" for file in ("manifest.json", "model.onnx", "tokenizer.json")
    }
    templates = (f"cappy_select/evaluate/templates/report.{kind}.j2" for kind in ("html", "md"))
    for needed in ("cappy_select/py.typed", "cappy_select/export/calibration.jsonl", *templates):
        assert needed in names
    assert {"LICENSE", "NOTICE"} <= {name.rsplit("/", 1)[-1] for name in names if ".dist-info/" in name}


def test_the_metadata_excludes_the_compromised_litellm_and_has_the_extras(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode()
    (litellm,) = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: litellm")]
    assert "!=1.82.7" in litellm
    assert "!=1.82.8" in litellm
    for extra in ("langchain", "export", "all", "dev"):
        assert f"Provides-Extra: {extra}" in metadata
    base = [line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert not any(heavy in line for line in base for heavy in ("torch", "transformers", "jax", "langchain"))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wheel", "editable"])
def test_it_installs_into_a_clean_environment_and_ranks(how, wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    what = [str(wheel)] if how == "wheel" else ["--editable", str(ROOT)]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *what], check=True, cwd=tmp_path)
    command = [
        str(tmp_path / "env" / "bin" / "cappy"),
        "rank",
        "What label? Oil prices rose.",
        "Sports",
        "Business",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["response"] == "Business"
    check = "import litellm_cappy, sys; assert 'torch' not in sys.modules"
    subprocess.run([str(python), "-c", check], check=True, cwd=tmp_path)


def test_the_files_of_the_house_can_be_read_and_agree_on_the_version():
    import yaml

    read = {file: yaml.safe_load((ROOT / file).read_text()) for file in
            (".pre-commit-config.yaml", ".github/workflows/ci.yml", "CITATION.cff")}  # fmt: skip
    assert {hook["id"] for repo in read[".pre-commit-config.yaml"]["repos"] for hook in repo["hooks"]} >= {
        "ruff",
        "format",
    }
    assert read[".github/workflows/ci.yml"]["jobs"].keys() == {"whole", "versions", "lowest", "smoke"}
    assert read["CITATION.cff"]["version"] == cappy_select.__version__
    pinned = (ROOT / "requirements-dev.lock").read_text().splitlines()
    assert all("==" in line for line in pinned if not line.startswith("#"))
