from __future__ import annotations

import asyncio
import atexit
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Read at import. That the library needs neither is tested in processes of their own (test_offline.py).
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "true"
# What JAX compiles is compiled once for all tests and the processes they start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="cappy-xla-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
sys.path.insert(0, str(Path(__file__).parent))

import pytest
from hypothesis import settings
from loopback import Loopback, serve
from tasks import store, tasks  # noqa: F401 - fixtures
from trainings import pairs, recipe  # noqa: F401 - fixtures

from cappy_select import LiteLLMProvider, OpenAIProvider, Scorer
from cappy_select.bundle.bundle import Bundle
from cappy_select.export import export_checkpoint

settings.register_profile("without deadlines", deadline=None)  # of wall time, on a machine that others use too
settings.load_profile("without deadlines")


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    with serve() as server:
        yield server
    assert server.violations == []


@pytest.fixture
def provider(loopback: Loopback):
    """Makes a LiteLLM provider for a model of the loopback server."""

    def make(name: str, **options) -> LiteLLMProvider:
        prices = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
        return LiteLLMProvider(f"openai/{name}", api_base=loopback.base, api_key="sk-secret-1234", **prices | options)

    return make


@pytest.fixture
def direct(loopback: Loopback):
    """Makes a provider for a model of the loopback server that goes through OpenAI's own client."""

    def make(name: str, **options) -> OpenAIProvider:
        prices = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}
        return OpenAIProvider(name, api_base=loopback.base, api_key="sk-secret-1234", **prices | options)

    return make


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from tiny import make_bert, make_roberta

    root = tmp_path_factory.mktemp("checkpoints")
    return {"bert": make_bert(root / "tiny-bert"), "roberta": make_roberta(root / "tiny-roberta")}


@pytest.fixture(scope="session")
def bundles(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    root = tmp_path_factory.mktemp("bundles")
    return {kind: export_checkpoint(folder, root / kind) for kind, folder in checkpoints.items()}


@pytest.fixture(scope="session")
def tiny(bundles: dict[str, Bundle]) -> Scorer:
    return Scorer(bundles["bert"])


@pytest.fixture(scope="session")
def default() -> Scorer:
    return Scorer.load()


@pytest.fixture
def chat(loopback: Loopback, default: Scorer):
    """Makes a ChatCappy whose models by name are on the loopback server."""
    from langchain_cappy import ChatCappy

    def make(**options) -> ChatCappy:
        given = {"models": ["openai/a", "openai/b"], "samples": 1, "scorer": default} | options
        if any(isinstance(model, str) for model in given["models"]):
            given |= {"api_key": "sk-secret", "api_base": loopback.base}
        return ChatCappy(**given)

    return make


@pytest.fixture
async def no_leaks():
    """After the test the loop has no task that was not there before, and nothing was logged as never retrieved."""
    known, complaints = asyncio.all_tasks(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    gc.freeze()  # what is there already is not looked through again
    yield
    await asyncio.sleep(0.05)
    gc.collect()
    gc.unfreeze()
    # LiteLLM keeps one logging task an event loop, whatever becomes of its calls.
    left = {task for task in asyncio.all_tasks() - known if "LoggingWorker" not in repr(task.get_coro())}
    assert left <= {asyncio.current_task()}
    assert complaints == []
