"""Retrieval with LangChain: passages are found by their words, the best are chosen by Cappy, and a model answers.

    python examples/langchain_rag.py -m openai/gpt-5-mini "Which rivers form the Amazon?"

Of the answers the best is chosen as well. Needs `pip install 'cappy-select[langchain]'`; keys come from each
provider's environment variable.
"""

from __future__ import annotations

import argparse

from langchain_cappy import CappyCompressor, ChatCappy
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough

from cappy_select import (
    Scorer,
)

PASSAGES = (
    "The Marañón and the Ucayali meet near Nauta in Peru and form the Amazon.",
    "The Amazon carries more water than any other river; its basin covers seven million square kilometres.",
    "Which rivers have crocodiles? The Orinoco and the Magdalena do, as do swamps from Mexico to Peru.",
    "Lake Titicaca lies on the border of Peru and Bolivia, 3,812 metres above sea level.",
    "The form of the Andes changes with the rivers that cut into them.",
    "Llamas are kept in the Andes for their wool and as pack animals.",
)
PROMPT = ChatPromptTemplate.from_template("{context}\n\nAnswer from the passages above.\nQuestion: {question}")


def retrieve(question: str) -> list[Document]:
    """The four passages that share most words with the question."""
    asked = set(question.lower().strip("?").split())
    shared = [len(asked & set(passage.lower().strip(".").split())) for passage in PASSAGES]
    places = sorted(range(len(PASSAGES)), key=lambda place: -shared[place])[:4]
    return [Document(PASSAGES[place], metadata={"source": place}) for place in places]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("question")
    parser.add_argument("-m", "--model", action="append", required=True)
    parser.add_argument("--api-base", help="an OpenAI-compatible server")
    options = parser.parse_args()

    scorer = Scorer.load()
    compressor = CappyCompressor(scorer=scorer, top_n=2)
    model = ChatCappy(models=options.model, samples=2, scorer=scorer, api_base=options.api_base)

    def context(question: str) -> str:
        documents = compressor.compress_documents(retrieve(question), question)
        for document in documents:
            print(f"passage {document.metadata['source']}: {document.metadata['relevance_score']:.3f}")
        return "\n".join(document.page_content for document in documents)

    chain = {"context": context, "question": RunnablePassthrough()} | PROMPT | model | StrOutputParser()
    print(f"answer: {chain.invoke(options.question)}")


if __name__ == "__main__":
    main()
