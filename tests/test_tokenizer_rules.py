"""Tokenizers that somebody else made: what would take all memory or time is refused before it is loaded."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest
from test_bundle_untrusted import listed

from cappy_select import Scorer
from cappy_select.core import BundleDamaged, ExportError
from cappy_select.export import export_checkpoint
from cappy_select.scorer.tokenizer_rules import Refused, checked_tokenizer


@pytest.fixture
def bundle(bundles, tmp_path):
    return shutil.copytree(bundles["bert"].path, tmp_path / "bundle")


def with_tokenizer(bundle: Path, **parts) -> Path:
    tokenizer = json.loads((bundle / "tokenizer.json").read_text())
    (bundle / "tokenizer.json").write_text(json.dumps(tokenizer | parts))
    return listed(bundle)


def replace(pattern, content):
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def sequence(*steps):
    return {"type": "Sequence", "normalizers": list(steps)}


def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def charsmap(longest: int | str) -> str:
    text = ("x" * longest if isinstance(longest, int) else longest).encode()
    return base64.b64encode((4).to_bytes(4, "little") + b"\0\0\0\0" + text + b"\0").decode()


TOKENIZERS = {
    "a letter that doubles, again and again": ({"normalizer": sequence(*[replace("a", "aa")] * 30)}, "as long"),
    "in sequences of sequences": (
        {"normalizer": sequence(*[sequence(replace("b", "bbb"), replace("b", "bbb"))] * 8)}, "as long",
    ),
    "one letter that becomes a book": ({"normalizer": replace("e", "e" * 1_000_000)}, "as long"),
    "beginnings": ({"normalizer": sequence(*[{"type": "Prepend", "prepend": "▁" * 5}] * 20)}, "as long"),
    "a sign that Unicode makes eighteen of": (
        {"normalizer": sequence(replace("a", "\ufdfa" * 32), {"type": "NFKC"})}, "as long",
    ),
    "the same in a table": (
        {
            "normalizer": sequence(
                {"type": "Precompiled", "precompiled_charsmap": charsmap("\ufdfa" * 10)}, {"type": "NFKD"}
            )
        },
        "as long",
    ),
    "pieces as long as pages": (
        {"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a" * n, -1.0] for n in range(1, 200)]}},
        "pieces may have 199",
    ),
    "the empty text": ({"normalizer": replace("", "x")}, "the empty text"),
    "a table with a book in it": (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap(100_000)}}, "as long",
    ),
    "a table that is none": ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "%"}}, "no table"),
    "a regex that never ends": ({"pre_tokenizer": split(r"(a+)+$")}, "regex of its own"),
    "in a normalizer": (
        {"normalizer": {"type": "Replace", "pattern": {"Regex": r"(x|x)*y"}, "content": ""}}, "regex of its own",
    ),
    "in a decoder": (
        {"decoder": {"type": "Replace", "pattern": {"Regex": r"(.{9999}){9999}"}, "content": ""}}, "regex of its own",
    ),
    "an unknown step": ({"pre_tokenizer": {"type": "Shell"}}, "type 'Shell'"),
    "a step without a type": ({"normalizer": {"normalizers": []}}, "type None"),
    "steps without end": ({"normalizer": sequence(*[{"type": "NFC"}] * 1000)}, "longer than"),
}  # fmt: skip


@pytest.mark.parametrize("what", TOKENIZERS)
def test_a_tokenizer_that_would_take_all_memory_or_time_is_not_loaded(bundle, what):
    parts, message = TOKENIZERS[what]
    with pytest.raises(BundleDamaged, match=f"no tokenizer that a scorer may have.*{message}"):
        Scorer.load(with_tokenizer(bundle, **parts))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"max_input_chars_per_word": 10**9}, "characters, allowed are"),
        ({"dropout": 0.1}, "at random"),
        ({"type": "Oracle"}, "none of"),
    ],
)
def test_a_model_of_a_tokenizer_is_looked_at_too(bundle, model, message):
    there = json.loads((bundle / "tokenizer.json").read_text())["model"]
    with pytest.raises(BundleDamaged, match=message):
        Scorer.load(with_tokenizer(bundle, model=there | model))


def test_what_was_looked_at_is_what_is_loaded_of_a_name_that_comes_twice(bundle):
    """Which of the two a parser takes is its own affair."""
    before = Scorer.load(bundle).count_tokens("a river")
    content = (bundle / "tokenizer.json").read_text().strip()
    growing = json.dumps(sequence(*[replace("a", "aa")] * 40))
    (bundle / "tokenizer.json").write_text('{"normalizer": ' + growing + ", " + content.removeprefix("{"))
    assert Scorer.load(listed(bundle)).count_tokens("a river") == before


@pytest.mark.parametrize("content", [b"[]", b"{", b"[" * 100_000, b'"x"', b"\xff", b"null"])
def test_what_is_no_tokenizer_at_all_is_refused(content):
    with pytest.raises(Refused):
        checked_tokenizer(content)


def test_tokenizers_as_they_are_published_are_allowed():
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    likes = {
        "DeBERTa-v3": (
            models.Unigram([("<unk>", 0.0), ("▁a", -1.0)], 0),
            normalizers.Sequence([normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]),
            pre_tokenizers.Sequence([pre_tokenizers.Metaspace()]),
            decoders.Metaspace(),
        ),
        "ModernBERT": (models.BPE({"a": 0}, []), normalizers.NFC(), pre_tokenizers.ByteLevel(), decoders.ByteLevel()),
        "MPNet": (
            models.WordPiece({"[UNK]": 0}), normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(),
            decoders.WordPiece(),
        ),
        "Llama 2": (
            models.BPE({"a": 0}, []),
            normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
            None,
            decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
        ),
        "GPT-2 by a regex": (
            models.BPE({"a": 0}, []), normalizers.NFKC(),
            pre_tokenizers.Sequence(
                [pre_tokenizers.Split(Regex(gpt2), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
            ),
            decoders.ByteLevel(),
        ),
    }  # fmt: skip
    for model, normalizer, pre_tokenizer, decoder in likes.values():
        tokenizer = Tokenizer(model)
        tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, pre_tokenizer, decoder
        checked_tokenizer(tokenizer.to_str().encode())
    without_type = json.loads(tokenizer.to_str())  # as files of 2020 are
    del without_type["model"]["type"]
    checked_tokenizer(json.dumps(without_type).encode())


def test_a_checkpoints_tokenizer_is_looked_at_before_it_is_loaded_for_the_export_too(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "checkpoint")
    with_normalizer = json.loads((folder / "tokenizer.json").read_text())
    with_normalizer["normalizer"] = sequence(*[replace("a", "aa")] * 40)
    (folder / "tokenizer.json").write_text(json.dumps(with_normalizer))
    with pytest.raises(ExportError, match="times as long"):
        export_checkpoint(folder, tmp_path / "out")
