"""A judge model as a label: it reads instruction, references and response, and gives a mark; kept in the store."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from cappy_select.ask.calls import Call
from cappy_select.ask.providers import Provider, as_providers
from cappy_select.ask.sampling import Sampling
from cappy_select.core import background
from cappy_select.core.errors import ProviderError
from cappy_select.core.types import Candidate, Request
from cappy_select.data.bulk import BulkCall, Limits, OnProgress, Outcome, run_bulk
from cappy_select.data.instances import Instance
from cappy_select.data.store import SampleStore
from cappy_select.data.store_rows import Stored
from cappy_select.text.messages import response_text
from cappy_select.text.numbers import plain_signs

_ASKED = """Judge how right a response to an instruction is.

Instruction:
{instruction}
{references}
Response to judge:
{response}

Is the response right and complete? Write only a whole number from 0 (wrong) to 10 (entirely right)."""
_NUMBER = r"(?<![\w./–-])(10|\d)(?:\.0+)?"
_OF_TEN = re.compile(rf"{_NUMBER}\s*(?:/|out of|of)\s*10\b", re.IGNORECASE)
_ALONE = re.compile(rf"{_NUMBER}(?!\w|\s*[%/]|\.\d|[–-]\d)")
_MAX_TOKENS = 16


class Judge:
    """Has a model mark each response in a store once, if nobody said how right it is and it has not marked it yet.

    Args:
        model: A name or a provider, as `Selector` takes them.
        store: Opened for writing.
        limits: Of time, money and concurrency. What was spent in this store before counts towards the money.
        api_base: Address of an OpenAI-compatible server.
    """

    def __init__(
        self, model: str | Provider, store: SampleStore, *, limits: Limits | None = None, api_base: str | None = None
    ) -> None:
        (self._provider,) = as_providers([model], api_base=api_base)
        self._store, self._limits = store, limits or Limits()
        self._breaker = self._limits.fan_out().breaker(self.name)
        self.unreadable = 0  # answers that held no mark

    @property
    def name(self) -> str:
        """The judge's name in the store and as a label: `judge:MODEL`."""
        return self._provider.model

    def left(self) -> int:
        """How many responses it has still to mark."""
        return sum(1 for _ in self._unmarked())

    def run(self, on_progress: OnProgress = lambda outcome: None) -> Outcome:
        """Mark them. Can be interrupted at any moment and called again. Raises InputError."""
        lines = [(self.name, (self._bulk_call(instance, stored) for instance, stored in self._unmarked()))]
        return background.run(run_bulk(lines, self._limits, self._store, on_progress=on_progress))

    def _unmarked(self) -> Iterator[tuple[Instance, Stored]]:
        """One sample of each response that nobody has judged."""
        for instance, samples in self._store.instances():
            done = set(self._store.judgements(instance, self.name))
            done |= {stored.sample.response for stored in samples if stored.sample.quality is not None}
            for stored in samples:
                if stored.sample.response not in done:
                    done.add(stored.sample.response)
                    yield instance, stored

    def _bulk_call(self, instance: Instance, stored: Stored) -> BulkCall:
        references = "".join(f"\nA right answer:\n{reference}\n" for reference in instance.references)
        asked = _ASKED.format(instruction=instance.instruction, references=references, response=stored.sample.response)
        sampling = Sampling(max_tokens=_MAX_TOKENS)
        request = Request(
            messages=({"role": "user", "content": asked},), timeout_s=self._limits.timeout_s, params=sampling.params
        )

        def keep(answer: Candidate, number: int) -> None:
            mark = mark_in(response_text(answer.message))
            if mark is None:
                self.unreadable += 1
                self._store.add_bill("judge", self.name, answer.cost)
            else:
                self._store.add_judgement(stored.number, self.name, mark, answer.cost)

        def fail(failures: Sequence[ProviderError]) -> None:
            pass  # it is asked again by the next run

        call = Call(self._provider, request, self._breaker, sampling)
        return BulkCall(call, keep, fail)


def mark_in(text: str) -> float | None:
    """The mark from 0 to 10 in a text, scaled to [0, 1]: `8/10`, or the only number; None when it is not certain."""
    text = plain_signs(text)
    found = set(_OF_TEN.findall(text)) or set(_ALONE.findall(text))
    return int(found.pop()) / 10 if len(found) == 1 else None
