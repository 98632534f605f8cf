from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import awkward_pairs
from tokenizers import Tokenizer

from cappy_select.core.errors import InputError
from cappy_select.scorer.encoding import PairEncoder, checked, longest_first


@pytest.fixture(scope="module", params=["bert", "roberta"])
def both(request, checkpoints, bundles):
    bundle = bundles[request.param]
    return (
        transformers.AutoTokenizer.from_pretrained(checkpoints[request.param], split_special_tokens=True),
        PairEncoder.of(bundle),
    )


def _ours(encoder, pairs):
    return [encoder.pair(*encoder.tokens(pair)) for pair in pairs]


def test_ids_and_type_ids_equal_those_of_transformers(both):
    reference, encoder = both
    pairs = awkward_pairs(200)
    assert sum(row.instruction_cut + row.response_cut > 0 for row in _ours(encoder, pairs)) > 40  # many do not fit
    for pair, row in zip(pairs, _ours(encoder, pairs), strict=True):
        expected = reference(
            [pair[0]], [pair[1]], truncation="longest_first", max_length=512, return_token_type_ids=True
        )
        ids, type_ids = encoder.join(row)
        assert ids.tolist() == expected["input_ids"][0]
        assert type_ids.tolist() == expected["token_type_ids"][0]


def test_what_was_cut_is_counted(both):
    reference, encoder = both
    for pair, row in zip(pairs := awkward_pairs(60, seed=3), _ours(encoder, pairs), strict=True):
        whole = [len(reference(text, add_special_tokens=False)["input_ids"]) for text in pair]
        kept = len(encoder.join(row)[0]) - (512 - encoder.room)
        assert row.length == len(encoder.join(row)[0])
        assert sum(whole) == kept + row.instruction_cut + row.response_cut


@given(first=st.integers(0, 60), second=st.integers(0, 60), room=st.integers(2, 40))
@settings(max_examples=300, deadline=None)
def test_longest_first_is_the_arithmetic_of_tokenizers(first, second, room):
    reference = Tokenizer.from_str(_WORD_LEVEL)
    reference.enable_truncation(room, strategy="longest_first")
    encoded = reference.encode("a " * first, "b " * second)
    assert longest_first(first, second, room) == (encoded.tokens.count("a"), encoded.tokens.count("b"))


_WORD_LEVEL = json.dumps(
    {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "?": 2}, "unk_token": "?"},
    }
)


def test_a_cut_from_the_left_keeps_the_end_of_the_instruction(both):
    _, encoder = both
    instruction = "yes " * 600 + "which answer"
    (left,), (right,), (response,) = (
        list(encoder.tokens([text], side))
        for text, side in ((instruction, "left"), (instruction, "right"), ("no", "right"))
    )
    end = next(iter(encoder.tokens([" which answer"]))).kept
    from_left, from_right = encoder.pair(left, response, "left"), encoder.pair(right, response, "right")
    assert from_left.instruction_cut == from_right.instruction_cut > 0
    tail = -len(end) - len(response.kept) - _after(encoder)
    assert end.tolist() == encoder.join(from_left)[0][tail:][: len(end)].tolist()
    assert end.tolist() != encoder.join(from_right)[0][tail:][: len(end)].tolist()


def _after(encoder):
    """Special tokens between instruction and response, and behind it."""
    return sum(len(ids) for ids, _ in encoder._specials[1:])


def test_lone_surrogates_are_encoded_as_replacement_characters(both):
    _, encoder = both
    broken, replaced = encoder.tokens(["good \ud800 film", "good � film"])
    assert np.array_equal(broken.kept, replaced.kept)


NAMES = ("[SEP]", "[CLS]", "[PAD]", "[MASK]", "[UNK]", "<s>", "</s>", "<pad>", "<mask>", "<unk>")


@pytest.mark.parametrize("name", NAMES)
def test_the_name_of_a_special_token_in_a_text_is_text(both, name):
    reference, encoder = both
    unknown = reference.unk_token_id  # what a letter that is in no vocabulary becomes
    specials = set(reference.all_special_ids) - {unknown}
    for text in (name, f"yes {name} no", f"{name}{name}yes", f"yes{name}"):
        (tokens,) = encoder.tokens([text])
        assert not specials & set(tokens.kept.tolist())
        assert encoder.count(text) > 1
    (answer,) = encoder.tokens([f"yes {name} no"])
    ids, _ = encoder.join(encoder.pair(answer, answer))
    plain, _ = encoder.join(encoder.pair(*encoder.tokens(["yes", "no"])))
    assert [each for each in ids.tolist() if each in specials] == [each for each in plain.tolist() if each in specials]


def test_a_separator_that_is_listed_as_a_plain_token_is_no_separator_in_a_text_either(bundles):
    bundle = bundles["bert"]
    tokenizer = json.loads((bundle.path / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        token["special"] = False
    encoder = PairEncoder(json.dumps(tokenizer).encode(), 512, bundle.path)
    usual = PairEncoder.of(bundle)
    for text in ("yes [SEP] no", "[CLS]", "yes"):
        assert [each.kept.tolist() for each in encoder.tokens([text])] == [
            each.kept.tolist() for each in usual.tokens([text])
        ]


@pytest.mark.parametrize("pair", ["ab", ("a",), ("a", 3), ("a", None), ("a", "b", "c"), 7, None])
def test_a_pair_that_is_not_two_strings_is_named(pair):
    with pytest.raises(InputError, match="pair 1 must be"):
        list(checked([("fine", "fine"), pair]))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_two_megabyte_texts_as_one_pair_take_neither_long_nor_much_memory():
    script = textwrap.dedent("""
        import re, time
        from cappy_select import Scorer
        import warnings; warnings.simplefilter("ignore")
        scorer = Scorer.load()
        text = ("The council met on Tuesday, and after four hours it voted. " * 20_000)[:1_000_000]
        started = time.perf_counter()
        scored = scorer.score_detailed([(text, text[::-1])])
        seconds = time.perf_counter() - started
        # not ru_maxrss, which a child inherits from the process that started it
        peak_kib = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read()).group(1)
        print(seconds, int(peak_kib) / 1024, int(scored.cut[0]))
    """)
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    seconds, peak_mib, cut = map(float, out.split())
    assert cut > 100_000
    assert peak_mib < 500
    assert seconds < 30  # a hang, not a speed: it takes 1 to 2
