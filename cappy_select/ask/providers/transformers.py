"""A local model, seq2seq or causal, through transformers; finetuned or prompt-tuned with a PEFT adapter.

What an answer's tokens were worth to the model itself comes with it: their log-likelihoods by teacher
forcing, before temperature and the other warpers of sampling.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cappy_select.ask.parameters import given
from cappy_select.ask.sampling import PARAMETERS
from cappy_select.core.closing import Closable
from cappy_select.core.copies import made_again
from cappy_select.core.errors import InputError, MissingExtra, ProviderError
from cappy_select.core.fork import starts_anew_in_child
from cappy_select.core.types import Candidate, Message, Prompt, Request, Usage, content_text

_T = TypeVar("_T")

_drawing = threading.Lock()
_DEFAULT_MAX_TOKENS = 256  # transformers' own default of 20 cuts most answers off


class Likelihood(NamedTuple):
    """Natural log-probabilities of a response's tokens, the end-of-sequence token included."""

    tokens: list[int]
    logprobs: list[float]

    @property
    def sum(self) -> float:
        """Of the whole response."""
        return sum(self.logprobs)

    @property
    def mean(self) -> float:
        """A token."""
        return self.sum / len(self.logprobs) if self.logprobs else 0.0


@made_again
class TransformersProvider(Closable):
    """A model on this machine. Answers are drawn one batch at a time, whatever the number of models.

    Args:
        path: A folder or a hub id, as `from_pretrained` takes it. Code of a checkpoint is never run.
        adapter: A PEFT adapter (LoRA, prefix or prompt tuning, ...), a folder or a hub id.
        device: Such as `cuda`; default the first GPU, else the CPU.
        dtype: Such as `bfloat16`; default float32 on a CPU, what the checkpoint says elsewhere.
        max_source_tokens: Longer prompts are cut on the right, as the paper cuts at 512; how much is in the
            candidates' `response_fields`. None: a prompt beyond the model's window is a failure.
        name: In candidates and failures; default the folder's name.
        params, **known: Defaults of the sampling parameters (temperature, top_p, top_k, beams, seed, max_tokens,
            min_tokens); a request's own win. Unless `temperature` is 0 or there are beams, answers are
            drawn at random from all tokens: transformers' default of the 50 likeliest is off, and so are the
            checkpoint's own penalties. Answer number k of a selection is drawn with `seed + k`.

    Raises:
        MissingExtra: transformers, torch or peft is not installed.
        InputError: the model or the adapter can't be loaded, or a parameter is unknown (as an argument:
            UnknownArgument).
    """

    max_concurrency = 1  # calls; more would only wait here, and not in the fan-out, which knows that they wait

    def __init__(
        self,
        path: str | Path,
        *,
        adapter: str | Path | None = None,
        device: str | None = None,
        dtype: str | None = None,
        max_source_tokens: int | None = None,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        **known: Any,
    ) -> None:
        own = given(type(self).__init__, params, known, name="TransformersProvider", keywords=PARAMETERS)
        if unknown := sorted(own.keys() - PARAMETERS):
            raise InputError(f"a local model takes {', '.join(sorted(PARAMETERS))}, not {', '.join(unknown)}")
        self._name = name or Path(path).name
        self._params, self._max_source_tokens = own, max_source_tokens
        torch = _import("torch")
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer, self._model = _load(str(path), None if adapter is None else str(adapter), self._device, dtype)
        self._seq2seq = bool(self._model.config.is_encoder_decoder)
        self._worker = self._new_worker()
        starts_anew_in_child(self)

    def _new_worker(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"cappy-{self._name}")

    def start_anew(self) -> None:
        """In a forked child, which has not got the thread that draws, nor those of other models."""
        global _drawing
        _drawing, self._worker = threading.Lock(), self._new_worker()

    @property
    def model(self) -> str:
        """The name given, or the folder's."""
        return self._name

    def unsupported(self, params: Mapping[str, Any]) -> frozenset[str]:
        """Nothing but what is no sampling parameter.

        Args:
            params: Parameters by name.

        Returns:
            The names of those that are neither a `Sampling`'s, nor `n` or `logprobs`.
        """
        return frozenset(params.keys() - PARAMETERS - {"n", "logprobs"})

    def max_prompt_tokens(self, max_tokens: int | None) -> int:
        """Tokens that a prompt may have: a causal model's answer needs room in the same window.

        Args:
            max_tokens: Tokens that the answer may have; None: as the provider's own parameters say, else 256.

        Returns:
            Tokens, at most `max_source_tokens`.
        """
        answer = max_tokens or self._params.get("max_tokens") or _DEFAULT_MAX_TOKENS
        room = self._window - (0 if self._seq2seq else answer)
        return room if self._max_source_tokens is None else min(room, self._max_source_tokens)

    @property
    def _window(self) -> int:
        """Tokens that the model reads at most; of a prompt-tuned one some are taken."""
        config = self._model.config
        limits = [getattr(config, key, None) for key in ("max_position_embeddings", "n_positions", "n_ctx")]
        limits.append(self._tokenizer.model_max_length)
        adapter = getattr(self._model, "active_peft_config", None)
        return min(int(limit) for limit in limits if limit) - int(getattr(adapter, "num_virtual_tokens", None) or 0)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Length of a prompt in this model's tokens, by its chat template if it has one; nothing is cut.

        Args:
            messages: OpenAI-style, of text alone.

        Returns:
            Tokens.
        """
        return len(self._source(messages))

    def price(self, usage: Usage) -> float:
        """Nothing: it runs here.

        Args:
            usage: Not used.

        Returns:
            0 dollars.
        """
        return 0.0

    async def complete(self, request: Request) -> list[Candidate]:
        """`request.n` answers in one batch, each with the log-probabilities of its tokens.

        Args:
            request: What to ask; its parameters are those of a `Sampling`, and `logprobs`, which changes nothing.
                Without `max_tokens` an answer has at most 256.

        Returns:
            The answers. One of them stands for the prompt's tokens.

        Raises:
            ProviderError: the prompt is too long or not of text alone, a parameter is unknown, or time is up.
        """
        if self._model is None:
            raise ProviderError("this provider is closed", kind="bad_request", model=self._name)
        params = {**self._params, **request.params}
        params.pop("logprobs", None)  # they come with every answer
        if odd := sorted(params.keys() - PARAMETERS):
            raise ProviderError(f"a local model has no {', '.join(odd)}", kind="bad_request", model=self._name)
        return await self._off_loop(partial(self._generate, request, params))

    async def aclose(self) -> None:
        """Free the model's memory and end its thread. It can't be asked any more."""
        self._worker.shutdown(wait=False, cancel_futures=True)
        self._model = self._tokenizer = None

    async def log_likelihoods(self, prompt: Prompt, responses: Sequence[str]) -> list[Likelihood]:
        """What each response's tokens are worth to the model as an answer to the prompt.

        Args:
            prompt: A text, or messages; cut as for an answer.
            responses: The texts to weigh.

        Returns:
            For each response its tokens, the end-of-sequence token included, and their natural log-probabilities.

        Raises:
            ProviderError: the model can't read one of them (`context_window`), or the prompt is not of text alone.
        """
        messages = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
        return await self._off_loop(lambda stop: [self._read(messages, response) for response in responses])

    async def _off_loop(self, task: Callable[[threading.Event], _T]) -> _T:
        """Run in the worker; a caller who is cancelled stops the generation at its next token."""
        stop = threading.Event()
        future = asyncio.get_running_loop().run_in_executor(self._worker, task, stop)
        try:
            return await future
        finally:
            stop.set()

    def _generate(self, request: Request, params: dict[str, Any], stop: threading.Event) -> list[Candidate]:
        torch, transformers = _import("torch"), _import("transformers")
        whole = self._source(request.messages)
        source = self._cut(whole)
        cut = len(whole) - len(source)
        max_tokens = params.get("max_tokens") or _DEFAULT_MAX_TOKENS
        self._check_room(len(source) + (0 if self._seq2seq else max_tokens))
        seed = params.get("seed")
        if "seed" not in request.params and seed is not None:
            seed += request.sample
        until = time.monotonic() + request.timeout_s
        inputs = torch.tensor([source], device=self._device)
        config = self._config(request.n, max_tokens, params)
        # Random numbers are the process's: two models at once would draw each other's.
        with _drawing, torch.inference_mode(), torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            out = self._model.generate(
                input_ids=inputs,
                attention_mask=torch.ones_like(inputs),
                generation_config=config,
                stopping_criteria=transformers.StoppingCriteriaList([_Interrupted(stop, until)]),
            )
        if stop.is_set() or time.monotonic() > until:
            raise ProviderError(f"no answer within {request.timeout_s:g} s", kind="timeout", model=self._name)
        start = 1 if self._seq2seq else len(source)
        answers = [self._without_padding(row[start:]) for row in out.tolist()]
        candidates = [
            self._candidate(source, answer, cut, shared=len(source) if position == 0 else 0)
            for position, answer in enumerate(answers)
        ]
        sampling = {} if seed is None or "seed" in request.params else {"seed": seed}
        candidates = [candidate.model_copy(update={"sampling": sampling}) for candidate in candidates]
        # Without chance all answers are this one.
        return candidates + [candidates[0].model_copy(update={"usage": Usage()})] * (request.n - len(candidates))

    def _check_room(self, needed: int) -> None:
        if needed > self._window:
            raise ProviderError(
                f"prompt and answer need {needed} tokens, the model has {self._window}",
                kind="context_window",
                model=self._name,
            )

    def _candidate(self, source: list[int], answer: list[int], cut: int, shared: int) -> Candidate:
        """`shared`: the prompt's tokens, which one of the answers stands for."""
        likelihood = self._likelihood(source, answer)
        ended = bool(answer) and answer[-1] in self._ends
        content = [
            {"token": self._tokenizer.convert_ids_to_tokens(token), "id": token, "logprob": value}
            for token, value in zip(likelihood.tokens, likelihood.logprobs, strict=True)
        ]
        return Candidate(
            model=self._name,
            message={"role": "assistant", "content": self._tokenizer.decode(answer, skip_special_tokens=True)},
            finish_reason="stop" if ended else "length",
            usage=Usage(prompt_tokens=shared, completion_tokens=len(answer)),
            cost=0.0,
            logprobs={"content": content},
            logprob_sum=likelihood.sum,
            logprob_mean=likelihood.mean,
            response_fields={"prompt_tokens_cut": cut} if cut else {},
        )

    def _config(self, n: int, max_tokens: int, params: dict[str, Any]) -> Any:
        beams = params.get("beams")
        temperature = 1.0 if params.get("temperature") is None else params["temperature"]
        drawn = beams is None and temperature > 0
        return _import("transformers").GenerationConfig(
            do_sample=drawn,
            temperature=temperature if drawn else 1.0,
            top_k=params.get("top_k") or 0,
            top_p=1.0 if params.get("top_p") is None else params["top_p"],
            num_beams=beams or 1,
            num_return_sequences=n if drawn or beams else 1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            typical_p=1.0,
            max_new_tokens=max_tokens,
            min_new_tokens=params.get("min_tokens") or 0,
            pad_token_id=self._pad,
            eos_token_id=self._ends,
            decoder_start_token_id=self._model.generation_config.decoder_start_token_id,
        )

    def _read(self, messages: Sequence[Message], response: str) -> Likelihood:
        answer = self._tokenizer(response, add_special_tokens=False)["input_ids"]
        source = self._cut(self._source(messages))
        self._check_room(len(source) + (0 if self._seq2seq else len(answer) + 1))
        return self._likelihood(source, [*answer, self._ends[0]])

    def _likelihood(self, source: list[int], answer: list[int]) -> Likelihood:
        """By teacher forcing: what the model gives each token of the answer, knowing those before."""
        torch = _import("torch")
        if not answer:
            return Likelihood([], [])
        tensor = partial(torch.tensor, device=self._device)
        with torch.inference_mode():
            if self._seq2seq:
                first = self._model.generation_config.decoder_start_token_id
                first = self._model.config.decoder_start_token_id if first is None else first
                inputs = {"input_ids": tensor([source]), "decoder_input_ids": tensor([[first, *answer[:-1]]])}
            else:
                inputs = {"input_ids": tensor([[*source, *answer[:-1]]])}
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            # From the end: a prompt-tuned model's logits begin with those of its virtual tokens.
            logits = self._model(**inputs).logits[0, -len(answer) :].float()  # [answer, vocabulary]
            values = torch.log_softmax(logits, -1).gather(1, tensor(answer)[:, None])[:, 0]
        return Likelihood(answer, values.tolist())

    def _source(self, messages: Sequence[Message]) -> list[int]:
        """The prompt's tokens: by the tokenizer's chat template if it has one, else the texts themselves."""
        others = {kind for message in messages for kind in content_text(message.get("content"))[1]}
        if others:
            raise ProviderError(
                f"a local model reads text, the prompt has {', '.join(sorted(others))}",
                kind="bad_request",
                model=self._name,
            )
        if getattr(self._tokenizer, "chat_template", None):
            found = self._tokenizer.apply_chat_template(
                [{"role": m["role"], "content": content_text(m.get("content"))[0]} for m in messages],
                add_generation_prompt=True,
                return_dict=True,
            )["input_ids"]
        else:
            texts = (content_text(message.get("content"))[0] for message in messages)
            found = self._tokenizer("\n\n".join(text for text in texts if text))["input_ids"]
        return [int(token) for token in found]

    def _cut(self, source: list[int]) -> list[int]:
        """To `max_source_tokens`, on the right; a seq2seq model's end-of-sequence token stays."""
        most = self._max_source_tokens
        if most is None or len(source) <= most:
            return source
        ends = self._seq2seq and source[-1] in self._ends
        return [*source[: most - 1], source[-1]] if ends else source[:most]

    def _without_padding(self, answer: list[int]) -> list[int]:
        """Up to and with the first end-of-sequence token."""
        end = next((place for place, token in enumerate(answer) if token in self._ends), None)
        return answer if end is None else answer[: end + 1]

    @property
    def _ends(self) -> list[int]:
        given = self._model.generation_config.eos_token_id
        given = self._tokenizer.eos_token_id if given is None else given
        return [given] if isinstance(given, int) else list(given or ())

    @property
    def _pad(self) -> int | None:
        given: int | None = self._tokenizer.pad_token_id
        return given if given is not None else next(iter(self._ends), None)


class _Interrupted:
    """Ends a generation that nobody waits for any more."""

    def __init__(self, stop: threading.Event, until: float) -> None:
        self._stop, self._until = stop, until

    def __deepcopy__(self, _: Any) -> _Interrupted:
        return self  # prompt tuning copies the arguments of `generate`; the event must stay this one

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        over = self._stop.is_set() or time.monotonic() > self._until
        return _import("torch").full((input_ids.shape[0],), over, device=input_ids.device)


def _load(path: str, adapter: str | None, device: str, dtype: str | None) -> tuple[Any, Any]:
    torch, transformers = _import("torch"), _import("transformers")
    peft = _import("peft") if adapter else None
    try:
        config = transformers.AutoConfig.from_pretrained(path)
        kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        exact = getattr(torch, dtype) if dtype else (torch.float32 if device == "cpu" else "auto")
        model = kind.from_pretrained(path, dtype=exact)
        if peft is not None:
            model = peft.PeftModel.from_pretrained(model, adapter)
    except Exception as error:  # of many kinds: missing files, damaged weights, another architecture
        what = f"{path} with the adapter {adapter}" if adapter else path
        raise InputError(f"{what} can't be loaded as a language model: {type(error).__name__}: {error}") from error
    return tokenizer, model.to(device).eval()


def _import(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra("local", "a local model", module) from error
