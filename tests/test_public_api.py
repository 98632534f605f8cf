from __future__ import annotations

import ast
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
        "Argmax", "BundleDamaged", "BundleError", "BundleFormatError", "BundleNotFound", "Candidate", "CappyError",
        "Cluster", "DataError", "Declaring", "Delta", "Downgrade", "Example", "ExportError", "Failure", "FinishReason",
        "Gate", "InContext", "InputError", "Instruction", "JsonSchema", "LiteLLMProvider", "Matches",
        "MinimumBayesRisk", "MissingExtra", "NoCandidates", "NoGoodAnswer", "OpenAIProvider", "Plan", "Priced",
        "Provider", "ProviderError", "QualityCost", "Ranked", "ReplayProvider", "Request", "ResponseFormat", "Sampling",
        "ScoreCache", "Scorer", "Selection", "Selector", "SelfScore", "Strategy", "StrategyError", "Streaming",
        "ToolArguments", "TransformersProvider", "TruncationWarning", "UnknownArgument", "Usage", "Vote",
        "WeightedVote", "Windowed",
    }  # fmt: skip
    assert all(hasattr(cappy_select, name) for name in cappy_select.__all__)


HEAVY = ("torch", "jax", "litellm", "langchain_core", "transformers", "openai", "onnxruntime", "huggingface_hub")


@pytest.mark.parametrize("code", ["import cappy_select", "import cappy_select.cli.rank", "import cappy_select.export"])
def test_importing_is_light(code):
    script = f"{code}\nimport sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


# The order of DESIGN: a module imports only what is listed above it.
ORDER = [
    "telemetry", "terminal", "fork", "masking", "errors", "copies", "time_limit", "daemon_pool", "finish_reasons",
    "characters", "thinking", "tool_calls", "figures", "json_text", "yaml_files", "patterns", "spelling", "numbers",
    "json_schema", "types", "parameters", "instruction", "hub", "weight_files", "bundle", "room", "scorer",
    "recorded", "sampling", "prices", "providers", "similarity", "icl", "gates", "lanes", "calls", "fanout", "asking",
    "answers", "strategies", "background", "streaming", "select", "data", "export", "train", "evaluate", "adapt",
    "cli",
]  # fmt: skip
EXCEPTIONS = {("bundle", "export")}  # a hub checkpoint becomes a bundle where bundles are resolved; lazily


def test_a_module_imports_only_what_is_above_it():
    found = {}
    for file in ROOT.rglob("*.py"):
        module = file.relative_to(ROOT).parts[0].removesuffix(".py")
        if module == "__init__":
            continue
        assert module in ORDER, f"{module} has no place in the order"
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module else []
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                parts = name.split(".")
                assert parts[0] not in ("langchain_cappy", "litellm_cappy"), f"{file} imports an adapter"
                if parts[0] == "cappy_select" and len(parts) > 1 and parts[1] in ORDER:
                    found.setdefault((module, parts[1]), file.name)
    down = {edge for edge in found if ORDER.index(edge[1]) > ORDER.index(edge[0])}
    # `errors` names `types.Usage` and `Selection` for type checkers only
    assert down - {("errors", "types")} == EXCEPTIONS


def test_the_error_tree_is_drawn_as_it_is():
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)
    real = {n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, errors.CappyError)}
    assert sorted(drawn) == sorted(real - {"CappyError"})


def test_there_is_no_package_named_adapters():
    assert not (ROOT.parent / "adapters" / "__init__.py").exists()
