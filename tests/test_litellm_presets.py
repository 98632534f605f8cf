from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import litellm
import pytest
import yaml
from litellm.integrations.custom_logger import CustomLogger
from litellm_cappy import CappyLLM, load_presets, register
from loopback import Reply
from test_litellm_cappy import ASK, RIGHT, WRONG, astream

from cappy_select import InputError
from cappy_select.select import Panel, PanelModel

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def unregistered():
    before = litellm.custom_provider_map
    yield
    litellm.custom_provider_map = before


@pytest.fixture
def billed():
    """What LiteLLM's callbacks are told: (model, dollars, prompt tokens) a call."""

    class Ledger(CustomLogger):
        def __init__(self):
            self.calls = []

        def log_success_event(self, kwargs, response_obj, start_time, end_time):
            self.calls.append((kwargs["model"], kwargs["response_cost"], response_obj.usage.prompt_tokens))

        async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
            self.log_success_event(kwargs, response_obj, start_time, end_time)

    ledger = Ledger()
    litellm.callbacks.append(ledger)
    yield ledger.calls
    litellm.logging_callback_manager.remove_callback_from_list_by_object(litellm.callbacks, ledger)


@pytest.fixture
def write(tmp_path, loopback, monkeypatch):
    """Writes a preset file; `BASE` in it is the loopback server."""
    monkeypatch.setenv("PANEL_KEY", "sk-panel-1234")

    def write(text, name="presets.yaml"):
        (tmp_path / name).write_text(text.replace("BASE", loopback.base), encoding="utf-8")
        return tmp_path / name

    return write


GOOD = """
presets:
  panel:
    models:
      - &a
        model: openai/a
        api_base: BASE
        api_key_env: PANEL_KEY
        input_cost_per_token: 0.000001
        output_cost_per_token: 0.000002
        params: {top_p: 0.5}
      - {<<: *a, model: "openai:b", params: {}}
    samples: 1
    deadline_s: 20
    params: {temperature: 0.3}
  vote:
    models: [{<<: *a}]
    plan: plan.json
    strategy: vote
    extract: number
"""


def test_a_preset_file_says_who_is_asked_and_how(write, loopback):
    write('{"samplings": [{"n": 2}, {"max_tokens": 9}]}', "plan.json")
    register(write(GOOD))
    loopback.replies["a"] = [Reply(text=WRONG)]
    loopback.replies["b"] = [Reply(text=RIGHT)]
    response = litellm.completion(model="cappy/panel", messages=ASK)
    assert response.choices[0].message.content == RIGHT
    assert response._hidden_params["response_cost"] == pytest.approx(2 * 18e-6)
    assert {request["model"]: request.get("top_p") for request in loopback.requests} == {"a": 0.5, "b": None}
    assert {request["temperature"] for request in loopback.requests} == {0.3}
    assert set(loopback.keys) == {"sk-panel-1234"}
    loopback.replies["a"] = [Reply(text=f"{number} rivers") for number in (1, 2, 2)]
    response = litellm.completion(model="cappy/vote", messages=ASK)
    assert response.choices[0].message.content == "2 rivers"
    assert [request.get("max_tokens") for request in loopback.requests[2:]].count(9) == 1


def test_a_scorer_is_beside_the_file_and_loaded_once(write, tmp_path, default):
    (tmp_path / "bundle").symlink_to(default.bundle.path)
    preset = "{models: [openai/a], scorer: bundle}"
    presets = load_presets(write(f"presets: {{x: {preset}, y: {preset}, z: {{models: [openai/a]}}}}"))
    assert presets["x"].scorer is presets["y"].scorer is not presets["z"].scorer
    assert presets["x"].scorer.bundle.path == tmp_path / "bundle"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (GOOD, "", "the whole: must be a mapping, got NoneType"),
        (GOOD, "presets: {}", "presets: .*at least 1"),
        ("presets:", "models:", "models: there is no such key; there are presets|presets is missing"),
        ("samples: 1", "samples: [1", r"presets.yaml, line \d+: expected"),
        ("samples: 1", "sampels: 1", "presets.panel.sampels: there is no such key; there are models, samples, plan"),
        ("samples: 1", "samples: yes", "presets.panel.samples: .*integer, got True"),
        ("samples: 1", "samples: 1\n    samples: 2", r"line \d+: 'samples' stands twice"),
        ("samples: 1", "samples: 1\n    plan: quick", "presets.panel: give samples or a plan, not both"),
        ("samples: 1", "plan: paperr", "presets.panel: there is no plan 'paperr'"),
        ("deadline_s: 20", "deadline_s: -1", "presets.panel.deadline_s: .*greater than 0"),
        ("strategy: vote", "strategy: votes", "presets.vote: there is no strategy 'votes'; there are argmax, vote"),
        ("strategy: vote", "strategy: cluster", "presets.vote: extract is for vote and weighted_vote"),
        ("extract: number", "extract: numeral", "presets.vote: there is no extractor 'numeral'"),
        ("deadline_s: 20", "scorer: nowhere", "presets.panel: no bundle at .*nowhere"),
        ("model: openai/a", "model: gpt-who", "presets.panel: models.0: LiteLLM knows no provider"),
        ("model: openai/a", "model: replay:none.jsonl", "presets.panel: models.0: api_base, .*not for replay:none"),
        ("PANEL_KEY", "OTHER_KEY", "models.0: api_key_env: the environment variable OTHER_KEY is not set"),
        ("0.000001", "1e-6", "input_cost_per_token: write 1.0e-6, got what YAML takes for text"),
        ("deadline_s: 20", "deadlines: 20", "presets.panel.deadlines: there is no such key"),
        ("PANEL_KEY", "sk_abc_1234", "models.0: api_key_env must be the name"),
        ("PANEL_KEY", "sk-abc-1234", "models.0: api_key_env must be the name of an environment variable"),
        ("api_key_env: PANEL_KEY", "api_key: sk-abc-1234", "models.0.api_key: a key does not stand in the file"),
        ("{temperature: 0.3}", "{api_key: sk-abc-1234}", "presets.panel: params go to the models.*api_key"),
        ("{temperature: 0.3}", "{gates: []}", "presets.panel: params go to the models.*gates"),
        ("{top_p: 0.5}", "{api_base: x}", "presets.panel: models.0: params go to the models.*api_base"),
    ],
)  # fmt: skip
def test_a_faulty_preset_file_is_one_error_with_file_and_place(write, tmp_path, old, new, said):
    write('{"samplings": [{"n": 2}]}', "plan.json")
    assert old in GOOD
    with pytest.raises(InputError, match=said) as caught:
        CappyLLM.load(write(GOOD.replace(old, new)))
    assert str(caught.value).startswith(str(tmp_path / "presets.yaml"))
    assert not re.search("sk.abc", str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_preset_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml can't be read"):
        register(tmp_path / "none.yaml")


def test_a_preset_may_take_answers_that_are_cut_off(write, loopback):
    loopback.replies["a"] = [Reply(text=RIGHT, finish_reason="length")]
    model = "{model: openai/a, api_base: BASE, api_key_env: PANEL_KEY}"
    register(write(f"presets: {{x: {{models: [{model}], samples: 1, accept_cut_off: true}}}}"))
    assert litellm.completion(model="cappy/x", messages=ASK).choices[0].message.content == RIGHT


async def test_litellms_callbacks_see_one_bill_whoever_was_asked(write, loopback, billed):
    write('{"samplings": [{}]}', "plan.json")
    register(write(GOOD))
    await litellm.acompletion(model="cappy/panel", messages=ASK)
    await astream("cappy/panel")
    deadline = time.monotonic() + 10
    while len(billed) < 2 and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)  # for any that should not come
    assert billed == [("panel", pytest.approx(2 * 18e-6), 20)] * 2
    assert len(loopback.requests) == 4


def test_the_proxys_models_are_presets_of_its_file():
    folder = ROOT / "examples" / "litellm_proxy"
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    asked = {entry["litellm_params"]["model"] for entry in config["model_list"]}
    assert asked == {f"cappy/{name}" for name in load_presets(folder / "presets.yaml")}


def test_the_examples_of_the_page_run(write, loopback, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_API_BASE", loopback.base)
    monkeypatch.setenv("VLLM_KEY", "k")
    loopback.replies["gpt-5-mini"] = [Reply(text="")]
    loopback.replies["gpt-5-nano"] = [Reply(text=RIGHT)]
    page = (ROOT / "docs" / "litellm.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    assert names["response"].choices[0].message.content == RIGHT
    (presets,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert load_presets(write(presets)).keys() == {"panel", "numbers"}
    for key in (*Panel.model_fields, *PanelModel.model_fields):
        assert re.search(rf"^\|[^|]*`{key}`", page, re.MULTILINE), key


def test_a_preset_lets_clients_say_what_openai_knows_and_what_it_names(write, loopback):
    loopback.takes = frozenset({"guided_choice"})
    model = "{model: openai/a, api_base: BASE, api_key_env: PANEL_KEY}"
    register(write(f"presets: {{p: {{models: [{model}], samples: 1, allowed_params: [guided_choice]}}}}"))
    litellm.completion(model="cappy/p", messages=ASK, guided_choice=["a"], stop="u-7")
    assert (loopback.requests[0]["guided_choice"], loopback.requests[0]["stop"]) == (["a"], "u-7")
    for extra in ({"guided_json": {}}, {"extra_body": {"guided_json": {}}}):
        with pytest.raises(litellm.BadRequestError, match=r"guided_json can't be .* allows guided_choice"):
            litellm.completion(model="cappy/p", messages=ASK, **extra)


def test_the_owner_gives_litellms_own_parameters_to_a_model_and_not_to_all(write, loopback):
    preset = "presets: {{p: {{models: [{{model: openai/a, api_key_env: PANEL_KEY{}}}], samples: 1{}}}}}"
    register(write(preset.format(", params: {mock_response: said by the owner}", "")))
    said = litellm.completion(model="cappy/p", messages=ASK).choices[0].message.content
    assert said == "said by the owner"
    with pytest.raises(InputError, match=r"presets.p: mock_response can't be a call parameter"):
        load_presets(write(preset.format("", ", params: {mock_response: x}")))
    with pytest.raises(InputError, match=r"presets.p: allowed_params: api_base can never come from a caller"):
        load_presets(write(preset.format("", ", allowed_params: [api_base]")))


ELSEWHERE = """
presets:
  p:
    models:
      - model: os.environ/PANEL_MODEL
        api_base: os.environ/PANEL_URL
        api_key_env: PANEL_KEY
        params: {stop: os.environ/PANEL_STOP}
    samples: 1
"""


def test_a_text_of_a_preset_can_stand_in_the_environment(write, loopback, monkeypatch):
    monkeypatch.setenv("PANEL_MODEL", "openai/a")
    monkeypatch.setenv("PANEL_URL", loopback.base)
    monkeypatch.setenv("PANEL_STOP", "u-7")
    register(write(ELSEWHERE))
    monkeypatch.delenv("PANEL_URL")  # it was read with the file
    litellm.completion(model="cappy/p", messages=ASK)
    assert (loopback.requests[0]["model"], loopback.requests[0]["stop"]) == ("a", "u-7")
    with pytest.raises(InputError, match=r"presets.p.models.0.api_base: the environment variable PANEL_URL is not set"):
        load_presets(write(ELSEWHERE))


def test_a_key_never_comes_from_the_environment_by_that_way(write, monkeypatch):
    for key in ("api_key_env", "api_key"):
        with pytest.raises(InputError) as caught:
            load_presets(write(f"presets: {{p: {{models: [{{model: openai/a, {key}: os.environ/PANEL_KEY}}]}}}}"))
        assert "api_key_env" in str(caught.value)
        assert "sk-panel" not in str(caught.value)


def test_an_alias_within_itself_is_a_fault_of_the_file(write):
    with pytest.raises(InputError, match=r"presets.yaml"):
        load_presets(write("presets: &a {p: *a}"))
