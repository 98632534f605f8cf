"""Forks and exits while something is under way: real processes, each with an alarm against hanging."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
from loopback import Reply

GUARD = """
import asyncio, os, signal, sys, threading, time
signal.alarm(100)
from cappy_select import LiteLLMProvider, OpenAIProvider, ScoreCache, Scorer, Selector
def provider(kind, model="m"):
    if kind == "openai":
        return OpenAIProvider(model, api_base=sys.argv[1], api_key="k")
    return LiteLLMProvider(f"openai/{model}", api_base=sys.argv[1], api_key="k")
def child(work):
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        code = 9
        try:
            code = work()
        finally:
            os._exit(code)
    return pid
def code_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
CLIENTS = ["openai", pytest.param("litellm", marks=pytest.mark.slow)]  # it takes seconds to import, in each process
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run(script: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"} | settings
    command = [sys.executable, "-W", "ignore", "-c", GUARD + textwrap.dedent(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)


# ------------------------------------------------------------------------------------------------------ the exit

BUSY = {
    "scores": "scorer.score('q', [f'{n} ' * 50 for n in range(3000)])",
    "counts tokens": "[scorer.count_tokens('the river ' * 20_000 + str(n)) for n in range(200)]",
    "scores from a loop": "asyncio.run(scorer.ascore('q', [f'{n} ' * 50 for n in range(3000)]))",
    "loads": "[Scorer.load() for _ in range(200)]",
}


@pytest.mark.parametrize("what", BUSY)
def test_a_daemon_thread_does_not_abort_the_exit_nor_hold_it_up(what):
    for wait_s in (0.2, 0.5, 0.8):
        done = run(f"""
            scorer = Scorer.load()
            threading.Thread(target=lambda: {BUSY[what]}, daemon=True).start()
            time.sleep({wait_s})
        """)
        assert (done.returncode, done.stderr) == (0, "")


def test_an_ordinary_thread_scores_to_its_end_after_the_main_one_has_ended():
    done = run("""
        scorer = Scorer.load()
        texts = [f"{n} " * 20 for n in range(200)]
        def both():
            print(len(scorer.score("q", texts)), len(asyncio.run(scorer.ascore("r", texts))))
        threading.Thread(target=both).start()
    """)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["200", "200"], "")


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("how", ["selector.select('q')", "asyncio.run(selector.aselect('q'))"])
def test_an_answer_that_comes_after_the_main_thread_has_ended_is_not_lost(loopback, kind, how):
    loopback.replies["m"] = [Reply(), Reply(text="The Ucayali.", delay_s=3.0)]
    done = run(
        f"""
        selector = Selector([provider({kind!r})], samples=1, deadline_s=60)
        selector.select("first")  # so that all is imported, and the next call under way at once
        threading.Thread(target=lambda: print({how}.text)).start()
        time.sleep(1)
        """,
        loopback.base,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "The Ucayali."), done.stderr
    assert len(loopback.requests) == 2


def test_a_call_that_is_tried_again_after_the_main_thread_has_ended_finds_its_host(loopback):
    """The name of the host is looked up anew, in a thread of the loop's."""
    loopback.replies["m"] = [Reply(status=500, delay_s=1.0, headers={"Connection": "close"}), Reply(text="yes")]
    done = run(
        """
        selector = Selector([provider("openai")], samples=1, deadline_s=60)
        threading.Thread(target=lambda: print(selector.select("q").text)).start()
        time.sleep(0.3)
        """,
        loopback.base.replace("127.0.0.1", "localhost"),
    )
    assert (done.returncode, done.stdout.strip()) == (0, "yes"), done.stderr
    assert len(loopback.requests) == 2


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_daemon_thread_that_selects_does_not_hold_up_the_exit(loopback, kind):
    loopback.replies["m"] = [Reply(delay_s=30)]
    done = run(
        f"""
        selector = Selector([provider({kind!r})], samples=2, deadline_s=60)
        threading.Thread(target=lambda: selector.select("q"), daemon=True).start()
        time.sleep(2)
        signal.alarm(15)
        """,
        loopback.base,
    )
    assert done.returncode == 0, done.stderr


def test_what_scores_when_all_is_over_is_told_so():
    """By a handler that was there before the library, and so comes after it."""
    done = run("""
        import atexit
        from cappy_select.scorer import native
        atexit.unregister(native._end)
        def late():
            try:
                scorer.score("q", ["new"])
            except RuntimeError as error:
                print(error)
        atexit.register(late)
        atexit.register(native._end)
        scorer = Scorer.load()
    """)
    assert (done.returncode, done.stdout.strip()) == (0, "the interpreter is exiting: nothing can be scored any more")


# ---------------------------------------------------------------------------------------------------------- forks


@needs_fork
@pytest.mark.parametrize("kind", CLIENTS)
def test_a_child_forked_while_calls_hold_every_place_selects_too(loopback, kind):
    """The calls under way are the parent's, and so are their places: the child has places of its own."""
    loopback.answer = lambda request: Reply(text="yes", delay_s=0.0 if "child" in str(request["messages"]) else 4.0)
    done = run(
        f"""
        selector = Selector([provider({kind!r})], samples=2, max_concurrency=2, deadline_s=40)
        selector.select("child, no: before it")
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(selector.select("parent").text)) for _ in range(2)]
        for thread in threads: thread.start()
        time.sleep(1.5)
        def work():
            both = [selector.select(f"child {{n}}").text for n in range(2)]
            both.append(asyncio.run(selector.aselect("child, async")).text)
            return 7 if both == ["yes"] * 3 else 8
        codes = [code_of(child(work)) for _ in range(2)]
        for thread in threads: thread.join()
        print(codes, answers, selector.select("child, no: parent").text)
        """,
        loopback.base,
    )
    assert done.stdout.strip() == "[7, 7] ['yes', 'yes'] yes", done.stderr


@needs_fork
@pytest.mark.parametrize("moment_s", [0.02, 0.1, 3])  # as the first call begins; and while it waits for its answer
def test_a_child_forked_by_a_running_event_loop_selects_too(loopback, moment_s):
    loopback.answer = lambda request: Reply(text="yes", delay_s=0.0 if "child" in str(request["messages"]) else 6.0)
    done = run(
        f"""
        selector = Selector([provider("openai")], samples=1, max_concurrency=1, deadline_s=40)
        async def serve():
            asked = asyncio.create_task(selector.aselect("parent"))
            await asyncio.sleep({moment_s})
            pid = child(lambda: 7 if selector.select("child").text == "yes" else 8)
            print((await asked).text, code_of(pid))
        asyncio.run(serve())
        """,
        loopback.base,
    )
    assert done.stdout.strip() == "yes 7", done.stderr


@needs_fork
def test_children_forked_while_scorers_load_and_a_shared_cache_is_written_score_too():
    done = run("""
        cache, over = ScoreCache(), threading.Event()
        first = Scorer.load(cache=cache)
        def load():
            while not over.is_set():
                Scorer.load(threads=1, cache=cache).score("q", [str(time.time())])
        def score():
            while not over.is_set():
                first.score("q", [str(time.time()), "b"])
        threads = [threading.Thread(target=each) for each in (load, score, score)]
        for thread in threads: thread.start()
        def work():
            own = Scorer.load(threads=1, cache=cache)
            found = [scorer.score("q", ["new", "b"]).tolist() for scorer in (first, own)]
            return 7 if found[0] == found[1] and asyncio.run(first.ascore("q", ["newer"])).shape == (1,) else 8
        codes = []
        for _ in range(6):
            time.sleep(0.11)
            codes.append(code_of(child(work)))
        over.set()
        for thread in threads: thread.join()
        print(codes, len(first.score("q", ["last"])))
    """)
    assert done.stdout.strip() == "[7, 7, 7, 7, 7, 7] 1", done.stderr


@needs_fork
def test_a_child_does_not_wait_for_the_tokenizers_threads_which_it_has_not_got():
    done = run(
        """
        scorer = Scorer.load()
        texts = [f"The Ucayali {n}" * 20 for n in range(50)]
        scorer.score("q", texts)
        print(code_of(child(lambda: 7 if scorer.score("r", texts).shape == (50,) else 8)))
        """,
        TOKENIZERS_PARALLELISM="true",
    )
    assert done.stdout.strip() == "7", done.stderr


@needs_fork
def test_a_child_draws_from_a_local_model_while_the_parent_does(tmp_path):
    from tiny import make_gpt2

    done = run(
        """
        from cappy_select import NoCandidates, TransformersProvider
        selector = Selector([TransformersProvider(sys.argv[1], max_tokens=8)], samples=1, deadline_s=50)
        def ask():
            try:
                return selector.select("the river").text
            except NoCandidates as none:  # random weights: most answers are cut off
                return none.exceptions[0].kind
        over = threading.Event()
        thread = threading.Thread(target=lambda: [ask() for _ in iter(over.is_set, True)])
        thread.start()
        codes = []
        for _ in range(3):
            time.sleep(0.2)
            codes.append(code_of(child(lambda: 8 if ask() == "timeout" else 7)))
        over.set()
        thread.join()
        print(codes)
        """,
        str(make_gpt2(tmp_path / "gpt2")),
    )
    assert done.stdout.strip() == "[7, 7, 7]", done.stderr


@needs_fork
def test_workers_of_a_server_that_loaded_selected_and_then_forked_do_both(loopback):
    """As under `gunicorn --preload`, and as multiprocessing forks."""
    loopback.replies["m"] = [Reply(text="yes")]
    done = run(
        """
        import multiprocessing
        selector = Selector([provider("openai"), provider("litellm")], samples=1, deadline_s=40)
        selector.select("before")
        pids = [child(lambda: 7 if selector.select("in a worker").text == "yes" else 8) for _ in range(3)]
        codes = [code_of(pid) for pid in pids]
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        worker = context.Process(target=lambda: queue.put(selector.select("in another").text))
        worker.start()
        print(codes, queue.get(timeout=60), selector.select("after").text)
        worker.join()
        """,
        loopback.base,
    )
    assert done.stdout.strip() == "[7, 7, 7] yes yes", done.stderr
