"""Tiny checkpoints with random weights: real architectures, real tokenizers, a second to make."""

from __future__ import annotations

import json
import random
from pathlib import Path

WORDS = (
    "the river begins in peru where two rivers meet near the town question which answer yes no maybe "
    "battery died after days support never answered good bad film warm funny again price dollars pencils "
    "summary council voted bridge repairs spring capital australia sydney canberra melbourne vienna"
).split()


def wordpiece_vocabulary(specials: list[str]) -> dict[str, int]:
    """Every word, and every letter to spell others with. Given, not trained: the trainers break ties at random."""
    letters = sorted(set("".join(WORDS)) | set("0123456789.,?!\"':;()-"))
    return {
        token: i for i, token in enumerate([*specials, *letters, *(f"##{c}" for c in letters), *sorted(set(WORDS))])
    }


def bpe_merges() -> list[tuple[str, str]]:
    """Merges that build each word, with and without a space before it, letter by letter."""
    merges = {}
    for word in sorted(set(WORDS)):
        for spelled in (word, f"\u0120{word}"):
            for end in range(1, len(spelled)):
                merges[spelled[:end], spelled[end]] = None
    return list(merges)


def make_bert(folder: Path, **overrides: float) -> Path:
    """A BERT checkpoint with one label: lower-case WordPiece, type ids."""
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(wordpiece_vocabulary(specials), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(specials)
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    tokenizer.decoder = decoders.WordPiece()
    torch.manual_seed(0)
    config = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 512,
        "num_labels": 1,
        "initializer_range": 0.1,  # the usual 0.02 gives every pair nearly the same score
    } | overrides
    model = BertForSequenceClassification(BertConfig(**config, pad_token_id=0))
    return _save(folder, model, tokenizer, "BertTokenizer", dict(zip(_NAMES, specials, strict=True)))


def make_roberta(folder: Path, **overrides: float) -> Path:
    """A RoBERTa checkpoint with one label: byte-level BPE, positions from 2, no type ids."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import RobertaConfig, RobertaForSequenceClassification

    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    merges = bpe_merges()
    tokens = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet()), *dict.fromkeys(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    torch.manual_seed(0)
    config = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "num_labels": 1,
        "initializer_range": 0.1,  # the usual 0.02 gives every pair nearly the same score
    } | overrides
    model = RobertaForSequenceClassification(
        RobertaConfig(**config, pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5)
    )
    special_names = {
        "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>",
        "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>",
    }  # fmt: skip
    return _save(folder, model, tokenizer, "RobertaTokenizer", special_names)


def make_mpnet(folder: Path, **overrides: float) -> Path:
    """An MPNet checkpoint with one label: lower-case WordPiece between RoBERTa's special tokens, no type ids."""
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import MPNetConfig, MPNetForSequenceClassification

    specials = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>"]
    tokenizer = Tokenizer(models.WordPiece(wordpiece_vocabulary(specials), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(specials)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer.decoder = decoders.WordPiece()
    torch.manual_seed(0)
    config = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 514,
        "num_labels": 1,
        "initializer_range": 0.1,  # the usual 0.02 gives every pair nearly the same score
    } | overrides
    model = MPNetForSequenceClassification(
        MPNetConfig(**config, pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5)
    )
    special_names = {
        "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>",
        "pad_token": "<pad>", "unk_token": "[UNK]", "mask_token": "<mask>",
    }  # fmt: skip
    return _save(folder, model, tokenizer, "MPNetTokenizer", special_names)


_NAMES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")


def _save(
    folder: Path, model: object, tokenizer: object, kind: str, specials: dict[str, str], max_length: int = 512
) -> Path:
    model.save_pretrained(folder)
    # As some checkpoints are published: with a truncation and padding the scorer must not inherit.
    tokenizer.enable_truncation(128)
    tokenizer.enable_padding(length=128)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": kind, "model_max_length": max_length, **specials}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def awkward_pairs(count: int = 200, seed: int = 1) -> list[tuple[str, str]]:
    """Pairs of mixed lengths to beyond any window, with everything a text may hold."""
    rng = random.Random(seed)
    special = [
        *("", " ", "\n\t\r", "a\u0000b", "x" * 10_000, "é" * 300, "[SEP] </s> <mask> [PAD] <pad>"),
        *("🙂🙃👩‍👩‍👧‍👦", "مرحبا كيف حالك", "שלום עולם", "\u202eright-to-left\u202c", "नमस्ते"),
        *("日本語のテキスト", "ﬁ ligature ①", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢"),
    ]

    def text() -> str:
        kind = rng.random()
        if kind < 0.25:
            return rng.choice(special)
        if kind < 0.35:
            return " ".join(rng.choices(special, k=3))
        words = rng.choice([1, 5, 20, 100, 250, 300, 600, 1500])
        return " ".join(rng.choices(WORDS, k=words))

    return [(text(), text()) for _ in range(count)]


def make_t5(folder: Path) -> Path:
    """A seq2seq model with random weights, and a tokenizer that ends a text as T5's does."""
    import torch
    from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

    specials = ["<pad>", "</s>", "<unk>"]
    tokenizer = _word_tokenizer(specials, end="</s>")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=tokenizer.get_vocab_size(), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, initializer_factor=2.0,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    model.generation_config = GenerationConfig(pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    names = dict(zip(("pad_token", "eos_token", "unk_token"), specials, strict=True))
    return _save_generator(folder, model, tokenizer, names)


def make_gpt2(folder: Path) -> Path:
    """A causal model with random weights and a window of 64 tokens."""
    import torch
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    specials = ["<pad>", "</s>", "<unk>"]
    tokenizer = _word_tokenizer(specials, end=None)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_positions=64, n_embd=32, n_layer=2, n_head=4,
        bos_token_id=1, eos_token_id=1, pad_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    model.generation_config = GenerationConfig(pad_token_id=0, eos_token_id=1)
    names = dict(zip(("pad_token", "eos_token", "unk_token"), specials, strict=True))
    return _save_generator(folder, model, tokenizer, names)


def _word_tokenizer(specials: list[str], end: str | None) -> object:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {token: i for i, token in enumerate([*specials, *sorted(set(WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(specials)
    if end is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
        )
    return tokenizer


def _save_generator(folder: Path, model: object, tokenizer: object, names: dict[str, str]) -> Path:
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder
