"""Hub ids, against a hub on 127.0.0.1. The hub library reads its settings at import, hence the subprocesses."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from fakehub import COMMIT, serve_hub


@pytest.fixture
def hub(bundles, checkpoints, tmp_path):
    repos = {"org/bundle": bundles["bert"].path, "org/checkpoint": checkpoints["roberta"], "org/other": tmp_path}
    with serve_hub(repos) as (address, downloads):

        def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
            settings = {
                "HF_ENDPOINT": address,
                "HF_HOME": str(tmp_path / "hf"),
                "CAPPY_CACHE": str(tmp_path / "cappy"),
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            }
            prelude = "from cappy_select import *\n"
            return subprocess.run(
                [sys.executable, "-c", prelude + code],
                capture_output=True,
                text=True,
                env={**os.environ, **settings, **env},
                timeout=120,
            )

        run.downloads = downloads
        run.cache = tmp_path / "cappy"
        yield run


SHOW = "print(Scorer.load('hf://org/{}').score('question', ['yes', 'no']).tolist())"


def test_a_hub_bundle_loads_without_torch_and_from_the_cache_when_the_hub_is_away(hub, tiny):
    code = SHOW.format("bundle") + "\nimport sys; assert 'torch' not in sys.modules"
    first = hub(code)
    assert first.stdout.strip() == str(tiny.score("question", ["yes", "no"]).tolist()), first.stderr
    assert sorted(set(hub.downloads)) == ["manifest.json", "model.onnx", "tokenizer.json"]
    for away in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        assert hub(code, **away).stdout == first.stdout


def test_a_hub_checkpoint_is_exported_once(hub, bundles):
    first = hub(SHOW.format("checkpoint"))
    assert first.returncode == 0, first.stderr
    (export,) = [path for path in (hub.cache / "exports").iterdir() if path.is_dir()]
    assert export.name == f"org--checkpoint@{COMMIT[:12]}-fp32-v1"
    made = (export / "manifest.json").stat().st_mtime_ns
    again = hub("import sys; sys.modules['torch'] = None\n" + SHOW.format("checkpoint"))
    assert again.stdout == first.stdout, again.stderr
    assert (export / "manifest.json").stat().st_mtime_ns == made
    assert f'"revision": "{COMMIT}"' in (export / "manifest.json").read_text()


def test_workers_that_start_together_export_once(hub):
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: hub(SHOW.format("checkpoint")), range(3)))
    assert len({run.stdout for run in done}) == 1
    assert all(run.returncode == 0 for run in done), [run.stderr for run in done]
    assert len([path for path in (hub.cache / "exports").iterdir() if path.is_dir()]) == 1


def test_a_damaged_cached_export_is_noticed(hub):
    assert hub(SHOW.format("checkpoint")).returncode == 0
    (export,) = [path for path in (hub.cache / "exports").iterdir() if path.is_dir()]
    (export / "tokenizer.json").write_text("{}")
    assert "BundleDamaged" in hub(SHOW.format("checkpoint")).stderr


def test_without_the_extra_a_checkpoint_names_it(hub):
    done = hub("import sys; sys.modules['torch'] = None\n" + SHOW.format("checkpoint"))
    assert "MissingExtra" in done.stderr
    assert "cappy-select[export]" in done.stderr


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("hf://org/missing", "", "can't be fetched"),
        ("hf://org/bundle", ", revision='nope'", "at revision 'nope'"),
        ("hf://missing", "", "written hf://org/name"),
        ("hf://a/b/c", "", "written hf://org/name"),
        ("hf://org/other", "", "neither"),
    ],
)
def test_what_is_not_there_is_one_clear_error(hub, source, options, message):
    done = hub(f"Scorer.load({source!r}{options})")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("cappy_select.core.errors.BundleNotFound"), done.stderr
    assert message in last


def test_no_hub_and_nothing_cached(hub):
    done = hub(SHOW.format("bundle"), HF_ENDPOINT="http://127.0.0.1:9")
    assert "BundleNotFound" in done.stderr
    assert "can't be reached" in done.stderr or "can't be fetched" in done.stderr


def test_the_export_command_takes_a_hub_id(hub, tmp_path):
    code = "import sys; sys.argv = ['cappy', 'export', 'org/checkpoint', %r]\nfrom cappy_select.cli import main; main()"
    done = hub(code % str(tmp_path / "exported"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "exported" / "manifest.json").exists()
