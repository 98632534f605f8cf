"""Credentials in what a server, a store or a log says: in every encoding, and in part."""

from __future__ import annotations

import base64
import json
import sqlite3
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import Reply

from cappy_select import InputError, LiteLLMProvider, NoCandidates, OpenAIProvider, Selector
from cappy_select.core.masking import credentials_in, masked
from cappy_select.data.instances import Instance
from cappy_select.data.sample import Sampler
from cappy_select.data.store import SampleStore

KEY = "Zx9/qWe+rT7=uIoP3aSdF5gH"
FORMS = {
    "as it is": KEY,
    "in capitals": KEY.upper(),
    "for an address": quote(KEY, safe=""),
    "for a form": quote_plus(KEY),
    "in JSON": json.dumps(KEY),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "base64 with a user": base64.b64encode(f"me:{KEY}".encode()).decode(),
    "base64 with a longer user": base64.b64encode(f"user:{KEY}:x".encode()).decode(),
    "base64 for an address": base64.urlsafe_b64encode(f"u:{KEY}".encode()).decode(),
    "without its end": KEY[:-4],
    "without its beginning": KEY[4:],
    "a piece of it": KEY[5:18],
}


def pieces_of(text: str, size: int = 12) -> set[str]:
    return {text[at : at + size].lower() for at in range(len(text) - size + 1)}


@pytest.mark.parametrize("form", FORMS)
def test_a_credential_is_masked_in_every_form(form):
    said = masked(f"refused: {FORMS[form]}, see the documentation", [KEY])
    assert "***" in said
    assert said.startswith("refused: ")
    assert said.endswith("see the documentation")
    left = pieces_of(said)
    assert not left & pieces_of(KEY)
    assert not left & pieces_of(FORMS[form].strip('"').rstrip("="))


@given(st.text(st.characters(codec="utf-8"), min_size=12, max_size=60), st.text(max_size=40), st.text(max_size=40))
def test_no_twelve_characters_of_a_credential_are_left(secret, before, after):
    assert not pieces_of(masked(f"{before}{secret}{after}", [secret]).replace("***", "\0")) & pieces_of(secret)


@given(st.text())
def test_a_text_without_a_credential_stays_as_it_is(text):
    if "=" not in text:
        assert masked(text, ["not-in-any-text-0123456789"]) == text


@pytest.mark.parametrize(
    ("name", "value", "is_secret"),
    [
        ("AWS_BEARER_TOKEN_BEDROCK", "bedrock9Bearer7Value", True),
        ("WATSONX_APIKEY", "watsonx1Value2", True),
        ("AWS_SECRET_ACCESS_KEY", "aws/Secret+Value01", True),
        ("PGPASSWORD", "hunter2hunter2", True),
        ("MY_PROXY", "http://me:prox1Pass@10.0.0.1:80", True),
        ("VERTEX_CREDENTIALS", '{"type": "service_account", "private_key": "-----9aBcDeF"}', True),
        ("TOKENIZERS_PARALLELISM", "disabled", False),
        ("MAX_TOKENS", "100000000", False),
        ("KEYBOARD_LAYOUT", "dvorak12", False),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/srv/keys/one.json", False),
        ("AUTH_MODE", "production", False),
    ],
)
def test_a_variable_is_a_credential_by_its_name_and_value(monkeypatch, name, value, is_secret):
    monkeypatch.setenv(name, value)
    shown = {"http": "prox1Pass", "{": "-----9aBcDeF"}.get(
        value[: 4 if value[0] == "h" and "://" in value else 1], value
    )
    assert (shown not in masked(f"it says {shown} here")) == is_secret


def test_what_a_providers_settings_hide():
    found = credentials_in(
        "the-key-itself",
        None,
        api_base="https://user:passw0rd9@host/v1?key=query0Key1",
        params={
            "extra_headers": {
                "X-Token": "header-value-1",
                "Content-Type": "application/json",
                "Authorization": "Bearer abc123",
            },
            "aws_secret_access_key": "aws-secret-1",
            "temperature": 0.5,
            "stop": "not a secret",
            "extra_body": {"nested": {"client_secret": ["deep-secret-1"]}},
        },
    )
    assert found == {
        *("the-key-itself", "passw0rd9", "query0Key1", "header-value-1", "Bearer abc123"),
        *("aws-secret-1", "deep-secret-1"),
    }


def test_what_looks_like_a_key_is_masked_whoever_it_belongs_to():
    for key in (
        "sk-proj-abcdefgh1234",
        "gsk_abcdefghijklmnop1234",
        "hf_abcdefghijklmnop1234",
        "AIzaSyA1234567890abcdefghij",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0",
    ):
        assert key not in masked(f"Incorrect key provided: {key}.")
    assert masked("GET /v1?key=abcdefgh12&x=1") == "GET /v1?key=***&x=1"
    assert masked("the request had 3 tokens and no authority") == "the request had 3 tokens and no authority"


@pytest.mark.parametrize("make", [OpenAIProvider, LiteLLMProvider])
@pytest.mark.parametrize("way", ["whole", "stream"])
@pytest.mark.parametrize("form", ["for an address", "base64 with a user", "without its end", "a header"])
def test_what_a_server_says_of_a_credential_is_in_no_message_and_no_store(loopback, tiny, tmp_path, make, way, form):
    said = "own-header-Value-7" if form == "a header" else FORMS[form]
    loopback.answer = lambda _: Reply(status=400, error=f"refused: {said}!")
    name = "m" if make is OpenAIProvider else "openai/m"
    provider = make(name, api_base=loopback.base, api_key=KEY, extra_headers={"X-Own": "own-header-Value-7"})
    selector = Selector([provider], samples=1, scorer=tiny, max_retries=0)
    with pytest.raises(NoCandidates) as raised:
        list(selector.stream("q")) if way == "stream" else selector.select("q")
    assert "***" in str(raised.value)
    assert said not in str(raised.value)
    assert KEY not in repr(provider)
    if way == "whole":
        with SampleStore(tmp_path / "s.db", write=True) as store:
            row = Instance(id="1", task="t", instruction="q", references=())
            Sampler(lambda: [row], [provider], store, samples=1).run()
        (kept,) = sqlite3.connect(tmp_path / "s.db").execute("select message from failures").fetchone()
        assert "***" in kept
        assert said not in kept


def test_what_basic_encodes_is_secret_too():
    header = "Basic " + base64.b64encode(b"user:hunter2hunter2").decode()
    found = credentials_in(extra_headers={"Authorization": header})
    for text in ("bad login user:hunter2hunter2", "bad password hunter2hunter2"):
        assert "hunter2" not in masked(text, found)


def test_what_is_sent_in_an_address_is_secret_but_for_its_version():
    found = credentials_in(default_query={"code": "qsecret-998877665544", "api-version": "2024-10-21"})
    assert found == {"qsecret-998877665544"}


def test_a_web_token_of_the_environment_is_masked(monkeypatch):
    monkeypatch.setenv("SNOWFLAKE_JWT", "abcDEF123ghiJKL456")
    assert "ghiJKL" not in masked("the token abcDEF123ghiJKL456 is no good")


def test_a_key_where_a_model_was_meant_is_not_repeated():
    with pytest.raises(InputError) as caught:
        LiteLLMProvider("sk-abcdef1234567890abcdef")
    assert "abcdef1234567890" not in str(caught.value)


def test_a_password_in_an_address_is_not_shown_by_a_chat_model(default):
    from langchain_cappy import ChatCappy
    from langchain_core.load import dumps

    chat = ChatCappy(
        models=["openai:m"], api_key=KEY, api_base="http://u:pwd-hunter2hunter2@127.0.0.1:9/v1", scorer=default
    )
    shown = [repr(chat), chat.model_dump_json(include={"api_base"}), str(chat._identifying_params), dumps(chat)]
    shown += [str(chat._get_invocation_params()), str(chat._get_ls_params())]
    assert not [text for text in shown if "hunter2" in text]
    assert chat.api_base == "http://u:pwd-hunter2hunter2@127.0.0.1:9/v1"
