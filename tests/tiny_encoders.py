"""Tiny checkpoints of every architecture that can be exported: random weights, each with its kind of tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tiny import WORDS, _save, bpe_merges, make_bert, make_roberta, wordpiece_vocabulary

_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def make_xlm_roberta(folder: Path, **overrides: float) -> Path:
    """Unigram with `</s></s>` between the texts; positions from 2, no type ids."""
    names = _names("<pad>", "<unk>", "<s>", "</s>", "<mask>") | {"bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = _unigram(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "<unk>", "<s> $A </s> </s> $B </s>")
    return _make("XLMRoberta", folder, tokenizer, names, overrides, max_position_embeddings=514, type_vocab_size=1,
                 pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5)  # fmt: skip


def make_mpnet(folder: Path, **overrides: float) -> Path:
    """WordPiece with RoBERTa's special tokens; positions from 2, a bias by distance, no type ids."""
    specials = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    names = _names("<pad>", "[UNK]", "<s>", "</s>", "<mask>") | {"bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = _wordpiece(specials, "<s> $A </s> </s> $B </s>")
    return _make("MPNet", folder, tokenizer, names, overrides, max_position_embeddings=514, pad_token_id=1,
                 bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5)  # fmt: skip


def make_distilbert(folder: Path, **overrides: float) -> Path:
    """WordPiece; no type ids, names of its own in the configuration."""
    shape = {"dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
             "hidden_dim": "intermediate_size"}  # fmt: skip
    given = _SHAPE | overrides
    own = {name: given.pop(usual) for name, usual in shape.items()}
    tokenizer = _wordpiece(list(_BERT), "[CLS] $A [SEP] $B:1 [SEP]:1")
    return _make("DistilBert", folder, tokenizer, _names(*_BERT), given | own, shape={}, max_position_embeddings=512)


def make_electra(folder: Path, **overrides: float) -> Path:
    """WordPiece, type ids, embeddings narrower than the encoder."""
    tokenizer = _wordpiece(list(_BERT), "[CLS] $A [SEP] $B:1 [SEP]:1")
    return _make("Electra", folder, tokenizer, _names(*_BERT), overrides, embedding_size=16)


def make_deberta(folder: Path, **overrides: float) -> Path:
    """Byte-level BPE; disentangled attention, distances as they are."""
    return _make("Deberta", folder, _byte_bpe(list(_BERT)), _names(*_BERT), overrides, max_position_embeddings=512,
                 type_vocab_size=0, relative_attention=True, pos_att_type=["c2p", "p2c"],
                 position_biased_input=False)  # fmt: skip


def make_deberta_v2(folder: Path, **overrides: float) -> Path:
    """As DeBERTa-v3 is published: Unigram; disentangled attention with shared matrices, distances in buckets."""
    tokenizer = _unigram(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"], "[UNK]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    return _make("DebertaV2", folder, tokenizer, _names(*_BERT), overrides, max_position_embeddings=512,
                 type_vocab_size=0, relative_attention=True, pos_att_type=["p2c", "c2p"], share_att_key=True,
                 norm_rel_ebd="layer_norm", position_buckets=256, max_relative_positions=-1,
                 position_biased_input=False)  # fmt: skip


def make_modernbert(folder: Path, model_max_length: int = 512, **overrides: float) -> Path:
    """Byte-level BPE; rotary positions, and layers that look 8 tokens to each side.

    Its window is 8,192 tokens, which would take long: the tokenizer's is shorter, as some are published.
    """
    return _make("ModernBert", folder, _byte_bpe(list(_BERT)), _names(*_BERT), overrides,
                 model_max_length=model_max_length,
                 num_hidden_layers=4, local_attention=16, pad_token_id=0, cls_token_id=2, sep_token_id=3,
                 bos_token_id=2, eos_token_id=3, initializer_cutoff_factor=3.0, classifier_pooling="mean")  # fmt: skip


MAKERS: dict[str, Callable[..., Path]] = {
    "bert": make_bert,
    "roberta": make_roberta,
    "xlm-roberta": make_xlm_roberta,
    "mpnet": make_mpnet,
    "distilbert": make_distilbert,
    "electra": make_electra,
    "deberta": make_deberta,
    "deberta-v2": make_deberta_v2,
    "modernbert": make_modernbert,
}


def _make(
    kind: str, folder: Path, tokenizer: object, names: dict[str, str], overrides: dict[str, float],
    shape: dict[str, int] = _SHAPE, model_max_length: int = 512, **usual: object,
) -> Path:  # fmt: skip
    import torch
    import transformers

    torch.manual_seed(0)
    config = {"vocab_size": tokenizer.get_vocab_size(), "num_labels": 1, "initializer_range": 0.1, "pad_token_id": 0}
    config = getattr(transformers, f"{kind}Config")(**config | shape | usual | overrides)
    model = getattr(transformers, f"{kind}ForSequenceClassification")(config)
    for name, parameter in model.named_parameters():  # made as zeros, which would hide what is left out
        if "bias" in name and parameter.dim() == 1:
            torch.nn.init.normal_(parameter, std=0.1)
    if kind != "ModernBert":  # whose head norms what it is given
        *_, last = model.classifier.modules()
        torch.nn.init.normal_(last.weight, std=0.08)  # so that no winner is clear, of what is random
    tokenizer_class = {"ModernBert": "PreTrainedTokenizerFast"}.get(kind, f"{kind}Tokenizer")
    return _save(folder, model, tokenizer, tokenizer_class, names, model_max_length)


def _names(pad: str, unknown: str, first: str, separator: str, mask: str) -> dict[str, str]:
    return {"pad_token": pad, "unk_token": unknown, "cls_token": first, "sep_token": separator, "mask_token": mask}


def _template(tokenizer: object, pair: str) -> None:
    from tokenizers import processors

    first, last = pair.split()[0], pair.split()[-1].split(":")[0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=pair,
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )


def _wordpiece(specials: list[str], pair: str) -> object:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(wordpiece_vocabulary(specials), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(specials)
    _template(tokenizer, pair)
    return tokenizer


def _byte_bpe(specials: list[str]) -> object:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    merges = bpe_merges()
    tokens = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet()), *dict.fromkeys(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    _template(tokenizer, "[CLS] $A [SEP] $B [SEP]")
    return tokenizer


def _unigram(specials: list[str], unknown: str, pair: str) -> object:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    letters = sorted(set("".join(WORDS)) | set("0123456789.,?!\"':;()-▁"))
    pieces = [(token, 0.0) for token in specials]
    pieces += [(f"▁{word}", -4.0) for word in sorted(set(WORDS))] + [(letter, -8.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, specials.index(unknown)))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(specials)
    _template(tokenizer, pair)
    return tokenizer
