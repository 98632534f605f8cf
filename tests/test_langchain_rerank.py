"""Documents scored against a query: the cross-encoder, and the compressor that keeps the best."""

from __future__ import annotations

import asyncio

import pytest
from langchain_cappy import CappyCompressor, CappyCrossEncoder
from langchain_core.cross_encoders import BaseCrossEncoder
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever

from cappy_select import InputError, TruncationWarning
from cappy_select.core import BundleNotFound

PASSAGES = {
    "refund": "Digital goods can be returned within 14 days if they were not downloaded. Choose Return.",
    "delivery": "Parcels arrive in two to four working days. Express delivery costs 9 euros and takes one day.",
    "rivers": "The Marañón and the Ucayali meet near Nauta in Peru and form the Amazon.",
    "lake": "Lake Titicaca lies on the border of Peru and Bolivia, 3,812 metres above sea level.",
    "llamas": "Llamas are kept in the Andes for their wool; they carry up to 30 kilograms.",
}
QUERIES = {
    "How do I get my money back for an e-book?": "refund",
    "next day delivery price": "delivery",
    "Which rivers form the Amazon?": "rivers",
    "How high is Lake Titicaca?": "lake",
    "What can a llama carry?": "llamas",
}
QUERY = "Which rivers form the Amazon?"


@pytest.fixture
def documents():
    return [Document(text, id=name, metadata={"source": name}) for name, text in PASSAGES.items()]


def names(documents):
    return [document.id for document in documents]


def test_the_passage_that_answers_a_query_is_first(default, documents):
    compressor = CappyCompressor(scorer=default, top_n=1)
    assert {query: names(compressor.compress_documents(documents, query))[0] for query in QUERIES} == QUERIES


def test_scores_are_those_of_the_templates(default):
    pairs = [(QUERY, text) for text in PASSAGES.values()]
    turned = [(f"Generate a question about the following passage: {text}", query) for query, text in pairs]
    encoder = CappyCrossEncoder(default)
    assert isinstance(encoder, BaseCrossEncoder)
    scores = encoder.score(pairs)
    assert scores == default.score_pairs(turned).tolist()
    assert all(type(score) is float for score in scores)
    assert asyncio.run(encoder.ascore(pairs)) == scores
    plain = CappyCrossEncoder(default, instruction="{query}", response="{document}")
    assert plain.score(pairs) == default.score_pairs(pairs).tolist()
    asking = CappyCrossEncoder(default, instruction="{document} Does it say {query} {{yes}}", response="Yes")
    assert asking.score([("who {a}", "It {b}")])[0] == default.score("It {b} Does it say who {a} {yes}", ["Yes"])[0]
    assert encoder.score([]) == []


def test_the_best_are_kept_as_copies_with_their_scores(default, documents):
    compressor = CappyCompressor(scorer=default, top_n=2)
    assert isinstance(compressor, BaseDocumentCompressor)
    kept = compressor.compress_documents(documents, QUERY)
    assert names(kept)[0] == "rivers"
    encoder = CappyCrossEncoder(default)
    scores = encoder.score([(QUERY, document.page_content) for document in documents])
    assert [document.metadata["relevance_score"] for document in kept] == sorted(scores, reverse=True)[:2]
    assert kept[0].metadata["source"] == "rivers"
    assert all(document.metadata == {"source": document.id} for document in documents)
    assert asyncio.run(compressor.acompress_documents(documents, QUERY)) == kept
    assert len(CappyCompressor(scorer=default).compress_documents(documents, QUERY)) == 3
    assert len(CappyCompressor(scorer=default, top_n=None).compress_documents(documents, QUERY)) == 5


def test_a_document_below_min_score_is_left_out(default, documents):
    everything = CappyCompressor(scorer=default, top_n=None).compress_documents(documents, QUERY)
    second = everything[1].metadata["relevance_score"]
    for least, kept in ((second, 2), (second + 1e-5, 1), (9.0, 0)):
        compressor = CappyCompressor(scorer=default, top_n=None, min_score=least)
        assert compressor.compress_documents(documents, QUERY) == everything[:kept]


def test_equal_documents_stay_in_their_order(default):
    same = [Document("The Amazon.", id=str(place)) for place in range(4)]
    assert names(CappyCompressor(scorer=default).compress_documents(same, QUERY)) == ["0", "1", "2"]


def test_no_documents_are_none(default):
    assert CappyCompressor(scorer=default).compress_documents([], QUERY) == []
    assert asyncio.run(CappyCompressor(scorer=default).acompress_documents([], QUERY)) == []


def test_a_document_that_does_not_fit_the_window_is_said(default):
    with pytest.warns(TruncationWarning, match="1 of 1 pairs"):
        CappyCompressor(scorer=default).compress_documents([Document("word " * 900)], QUERY)


class Compressing(BaseRetriever):
    """As langchain's ContextualCompressionRetriever does it."""

    base_compressor: BaseDocumentCompressor
    documents: list[Document]

    def _get_relevant_documents(self, query, *, run_manager):
        return self.base_compressor.compress_documents(self.documents, query, callbacks=run_manager.get_child())

    async def _aget_relevant_documents(self, query, *, run_manager):
        return await self.base_compressor.acompress_documents(self.documents, query, callbacks=run_manager.get_child())


def test_it_stands_in_a_retriever(default, documents):
    retriever = Compressing(base_compressor=CappyCompressor(scorer=default, top_n=1), documents=documents)
    assert names(retriever.invoke(QUERY)) == ["rivers"]
    assert names(asyncio.run(retriever.ainvoke(QUERY))) == ["rivers"]


@pytest.mark.parametrize("make", [CappyCrossEncoder, CappyCompressor])
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"instruction": "{query}", "response": "{query}"}, "{document} must be in the instruction or in the response"),
        ({"instruction": "Answer", "response": "yes"}, "{document} and {query} must be in"),
        ({"instruction": "{document} {quest}"}, "may have {query} and {document} in it, and no other field"),
        ({"instruction": "{document.metadata}"}, "no other field"),
        ({"instruction": "{document!r}"}, "no other field"),
        ({"instruction": "{document:>9}"}, "no other field"),
        ({"instruction": "{}"}, "no other field"),
        ({"instruction": "{document"}, "is no template: expected '}'"),
        ({"scorer": 5}, "scorer must be a Scorer, a folder or a hub id, got int 5"),
    ],
)
def test_a_bad_template_is_said_at_construction(default, make, options, why):
    with pytest.raises(InputError) as caught:
        make(**{"scorer": default} | options)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"top_n": 0}, "top_n: .*got 0"),
        ({"min_score": float("nan")}, "min_score: .*got nan"),
        ({"topn": 3}, "no argument 'topn': did you mean 'top_n'"),
        ({"response": 3}, "response: .*got 3"),
    ],
)
def test_other_bad_options_are_said_at_construction(default, options, why):
    with pytest.raises(InputError, match=why):
        CappyCompressor(**{"scorer": default} | options)


def test_what_is_no_query_no_document_or_no_pair_is_said(default):
    compressor, encoder = CappyCompressor(scorer=default), CappyCrossEncoder(default)
    with pytest.raises(InputError, match="the query must be a str, got dict"):
        compressor.compress_documents([], {"question": QUERY})
    with pytest.raises(InputError, match="document 1 must be a Document, got str"):
        compressor.compress_documents([Document("a"), "b"], QUERY)
    for pair in ("ab", ("a",), ("a", None), ("a", "b", "c"), 7):
        with pytest.raises(InputError, match="pair 1 must be"):
            encoder.score([("a", "b"), pair])


def test_a_scorer_that_is_not_there_is_a_bundle_error():
    for make in (CappyCrossEncoder, CappyCompressor):
        with pytest.raises(BundleNotFound):
            make(scorer="/no/such/bundle")
