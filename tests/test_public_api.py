from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import cappy_select
from cappy_select.core import errors

ROOT = Path(cappy_select.__file__).parent


def test_the_public_names_are_sorted_and_these():
    assert cappy_select.__all__ == sorted(cappy_select.__all__)
    assert set(cappy_select.__all__) == {
        "Argmax", "BundleError", "Candidate", "CappyError", "Cluster", "Delta", "Example", "FinishReason", "Gate",
        "InContext", "InputError", "JsonSchema", "LiteLLMProvider", "Matches", "MinimumBayesRisk", "MissingExtra",
        "NoCandidates", "NoGoodAnswer", "OpenAIProvider", "Plan", "Provider", "ProviderError", "QualityCost",
        "ReplayProvider", "Request", "Sampling", "ScoreCache", "Scorer", "Selection", "Selector", "SelfScore",
        "Strategy", "StrategyError", "ToolArguments", "TransformersProvider", "TruncationWarning",
        "UnknownArgument", "Usage", "Vote", "WeightedVote",
    }  # fmt: skip
    assert len(cappy_select.__all__) <= 40
    assert all(hasattr(cappy_select, name) for name in cappy_select.__all__)


HEAVY = ("torch", "jax", "litellm", "langchain_core", "transformers", "openai", "onnxruntime", "huggingface_hub")


@pytest.mark.parametrize("code", ["import cappy_select", "import cappy_select.cli.rank", "import cappy_select.export"])
def test_importing_is_light(code):
    script = f"{code}\nimport sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_the_package_loads_what_is_asked_for_and_no_more():
    script = """
import sys, cappy_select
assert {"Selector", "Scorer"} <= set(dir(cappy_select))
assert "cappy_select.ask" not in sys.modules and "numpy" not in sys.modules
assert cappy_select.scorer.Scorer is cappy_select.Scorer
assert "cappy_select.ask" not in sys.modules
from cappy_select import *
assert Selector is cappy_select.select.Selector
assert not {"yaml", "regex"} & sys.modules.keys(), "they are for who has patterns and panels"
try:
    cappy_select.Selektor
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "module 'cappy_select' has no attribute 'Selektor'\n", done.stderr


def test_the_error_tree_is_drawn_as_it_is():
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)
    real = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, errors.CappyError)}
    assert sorted(drawn) == sorted(real - {"CappyError"})


def test_there_is_no_package_named_adapters():
    assert not (ROOT.parent / "adapters" / "__init__.py").exists()
