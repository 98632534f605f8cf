"""`CappyCrossEncoder` and `CappyCompressor`: documents by how well they answer a query, scored on this machine.

A document is read as the instruction and the query as its response: is this the question that goes with this text?
Scorers learn that from tasks that ask for a question about a passage. The embedded one puts the right passage first
for 65 % of 60 questions (nine other passages each, five of them with the question's words; `benchmarks/rerank.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, ValidationError

from cappy_select import (
    InputError,
    Scorer,
)
from cappy_select.ask import (
    check_fields,
)
from cappy_select.core import (
    validation_message,
)

_PLACES = {"query", "document"}
_INSTRUCTION = "Generate a question about the following passage: {document}"


class CappyCrossEncoder(BaseCrossEncoder):
    """Scores of (query, document) pairs, for whatever takes a LangChain cross-encoder.

    Example:
        >>> from langchain_cappy import CappyCrossEncoder
        >>> encoder = CappyCrossEncoder()
        >>> scores = encoder.score([("How high is the lake?", "It lies at 3,812 m."), ("How high is the lake?", "No.")])
        >>> scores[0] > scores[1]
        True

    Args:
        scorer: A `Scorer`, or what `Scorer.load` takes; None for the embedded default.
        instruction: What the scorer reads as the instruction, with `{query}`, `{document}` or both in it.
        response: What it reads as the response. `instruction="{query}", response="{document}"` scores the pairs as
            `Scorer.score_pairs` does.

    Raises:
        InputError: a template can't be.
        BundleError: the scorer can't be loaded.
    """

    def __init__(
        self,
        scorer: Scorer | str | Path | None = None,
        *,
        instruction: str = _INSTRUCTION,
        response: str = "{query}",
    ) -> None:
        _check_templates(instruction, response)
        self.scorer = _loaded(scorer)
        self.instruction, self.response = instruction, response

    def __repr__(self) -> str:
        return f"{type(self).__name__}(instruction={self.instruction!r}, response={self.response!r})"

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """Raw scores of (query, document) pairs; higher is better.

        Warns `TruncationWarning` when a pair did not fit the scorer's window.

        Args:
            text_pairs: (query, document).

        Returns:
            A score for each pair, in their order.

        Raises:
            InputError: a pair is no two strs; names it.
        """
        scores: list[float] = self.scorer.score_pairs(self._pairs(text_pairs)).tolist()
        return scores

    async def ascore(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """`score` for async callers: those that score at the same time share batches.

        Args:
            text_pairs: As in `score`.

        Returns:
            A score for each pair, in their order.

        Raises:
            InputError: as `score`.
        """
        scores: list[float] = (await self.scorer.ascore_pairs(self._pairs(text_pairs))).tolist()
        return scores

    def _pairs(self, text_pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        pairs = []
        for place, pair in enumerate(text_pairs):
            if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
                raise InputError(f"pair {place} must be (query, document), two strings, got {pair!r:.80}")
            query, document = pair
            texts = {"query": query, "document": document}
            pairs.append((self.instruction.format(**texts), self.response.format(**texts)))
        return pairs


class CappyCompressor(BaseDocumentCompressor):
    """Keeps the documents that answer a query best, best first.

    Example:
        >>> from langchain_cappy import CappyCompressor
        >>> from langchain_core.documents import Document
        >>> documents = [Document("Llamas carry 30 kg."), Document("Lake Titicaca lies at 3,812 m.")]
        >>> CappyCompressor(top_n=1).compress_documents(documents, "How high is Lake Titicaca?")[0].page_content
        'Lake Titicaca lies at 3,812 m.'

    Stands in a `ContextualCompressionRetriever`, or in a chain as a function of documents and query. The documents
    returned are copies whose `metadata["relevance_score"]` is the raw score; of equal ones the earlier is first. Warns
    `TruncationWarning` when a document did not fit the scorer's window.

    Args:
        scorer: A `Scorer`, or what `Scorer.load` takes; None for the embedded default.
        top_n: Documents to keep; None for all.
        min_score: A score that a document must have. What a number means depends on the scorer: look at some first.
        instruction: What the scorer reads as the instruction, with `{query}`, `{document}` or both in it.
        response: What it reads as the response.

    Raises:
        InputError: a field or a template can't be.
        UnknownArgument: there is no such field.
        BundleError: the scorer can't be loaded.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    scorer: Any = Field(None, repr=False)
    top_n: int | None = Field(3, ge=1)
    min_score: float | None = Field(None, allow_inf_nan=False)
    instruction: str = _INSTRUCTION
    response: str = "{query}"

    def __init__(self, **fields: Any) -> None:
        """The fields by name; see the class.

        Args:
            fields: As the class lists them.

        Raises:
            InputError: a field or a template can't be.
            UnknownArgument: there is no such field.
            BundleError: the scorer can't be loaded.
        """
        check_fields(type(self).__name__, fields, type(self).model_fields)
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise InputError(validation_message(error)) from error

    def model_post_init(self, context: Any, /) -> None:
        """Load the scorer once, here, and check the templates.

        Args:
            context: Pydantic's.
        """
        super().model_post_init(context)
        self.scorer = _loaded(self.scorer)
        _check_templates(self.instruction, self.response)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The best of `documents`, as copies with their scores.

        Args:
            documents: What to choose from.
            query: What they should answer.
            callbacks: Not used: scoring reports to none.

        Returns:
            At most `top_n` documents of at least `min_score`, best first; those without a finite score last.

        Raises:
            InputError: the query is no str, or a document is none.
        """
        return self._best(documents, self._cross_encoder.score(_query_and_documents(query, documents)))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """`compress_documents` for async callers.

        Args:
            documents, query, callbacks: As in `compress_documents`.

        Returns:
            As `compress_documents`.

        Raises:
            InputError: as `compress_documents`.
        """
        return self._best(documents, await self._cross_encoder.ascore(_query_and_documents(query, documents)))

    @property
    def _cross_encoder(self) -> CappyCrossEncoder:
        return CappyCrossEncoder(self.scorer, instruction=self.instruction, response=self.response)

    def _best(self, documents: Sequence[Document], scores: list[float]) -> list[Document]:
        worth = [score if math.isfinite(score) else -math.inf for score in scores]
        order = sorted(range(len(documents)), key=lambda place: -worth[place])
        kept = [place for place in order if worth[place] >= (-math.inf if self.min_score is None else self.min_score)]
        return [
            documents[place].model_copy(
                update={"metadata": {**documents[place].metadata, "relevance_score": scores[place]}}
            )
            for place in kept[: self.top_n]
        ]


def _loaded(scorer: Any) -> Scorer:
    if isinstance(scorer, Scorer):
        return scorer
    if not (scorer is None or isinstance(scorer, str | Path)):
        raise InputError(f"scorer must be a Scorer, a folder or a hub id, got {type(scorer).__name__} {scorer!r:.80}")
    return Scorer.load(scorer)


def _check_templates(instruction: str, response: str) -> None:
    """Both texts must be in one of the two templates, and nothing else. Raises InputError."""
    found: set[str] = set()
    for name, template in (("instruction", instruction), ("response", response)):
        if not isinstance(template, str):
            raise InputError(f"{name} must be a template such as '{{query}}', got {template!r:.80}")
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            raise InputError(
                f"{name}={template!r:.200} is no template: {error}; write a brace as {{{{ or }}}}"
            ) from error
        for _, place, spec, conversion in parts:
            if place is not None and (place not in _PLACES or spec or conversion):
                raise InputError(
                    f"{name}={template!r:.200} may have {{query}} and {{document}} in it, and no other field"
                )
        found |= {place for _, place, _, _ in parts if place is not None}
    if missing := sorted(_PLACES - found):
        raise InputError(
            f"{' and '.join(f'{{{place}}}' for place in missing)} must be in the instruction or in the response, "
            f"got {instruction!r:.200} and {response!r:.200}"
        )


def _query_and_documents(query: str, documents: Sequence[Document]) -> list[tuple[str, str]]:
    if not isinstance(query, str):
        raise InputError(f"the query must be a str, got {type(query).__name__} {query!r:.80}")
    for place, document in enumerate(documents):
        if not isinstance(document, Document):
            raise InputError(f"document {place} must be a Document, got {type(document).__name__} {document!r:.80}")
    return [(query, document.page_content) for document in documents]
