"""Threads that nobody waits for."""

import math
import subprocess
import sys
import threading
import time

import pytest

from cappy_select.core.daemon_pool import PATIENCE_S, DaemonPool, PoolFull


def test_a_task_gives_its_result_or_its_exception() -> None:
    pool = DaemonPool("test", 2)
    assert pool.submit(lambda: 3).result(10) == 3
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result(10)


def test_one_thread_serves_tasks_that_come_one_after_the_other() -> None:
    pool = DaemonPool("test", 5)
    assert len({pool.submit(threading.get_ident).result(10) for _ in range(50)}) == 1


def test_tasks_that_hang_take_nothing_but_their_own_threads() -> None:
    pool = DaemonPool("test", 4)
    end = threading.Event()
    hanging = [pool.submit(end.wait) for _ in range(3)]
    assert pool.submit(lambda: "here").result(10) == "here"
    hanging.append(pool.submit(end.wait))
    with pytest.raises(PoolFull, match="all 4 threads"):
        pool.submit(lambda: "no room")
    end.set()
    assert all(future.result(10) for future in hanging)
    assert pool.submit(lambda: "room again").result(10) == "room again"


def test_a_burst_of_quick_tasks_is_no_burst_of_threads() -> None:
    pool = DaemonPool("test", 1000, at_a_time=3)
    together = threading.Semaphore(3)

    def alone() -> int:
        assert together.acquire(blocking=False), "more than three at a time"
        together.release()
        return threading.get_ident()

    done = [pool.submit(alone) for _ in range(500)]
    assert len({future.result(30) for future in done}) <= 3


def test_nobody_waits_long_for_tasks_that_hang() -> None:
    pool = DaemonPool("test", 100, at_a_time=3)
    end = threading.Event()
    hanging = [pool.submit(end.wait) for _ in range(30)]
    assert pool.submit(lambda: "through").result(60) == "through"
    end.set()
    assert all(future.result(60) for future in hanging)


def test_a_task_that_was_given_up_before_it_began_is_not_run() -> None:
    pool = DaemonPool("test", 2)
    ran = []
    future = pool.submit(lambda: ran.append(1))
    if future.cancel():  # it may have begun
        pool.submit(lambda: None).result(10)
        assert not ran


def test_the_interpreter_does_not_wait_for_a_task_that_hangs() -> None:
    code = (
        "import threading; from cappy_select.core.daemon_pool import DaemonPool; begun = threading.Event()\n"
        "DaemonPool('test', 1).submit(lambda: (begun.set(), threading.Event().wait())); begun.wait(30)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_tasks_that_are_known_to_end_wait_for_a_thread_however_long():
    pool, over = DaemonPool("patient", 1000, at_a_time=2, patience_s=math.inf), threading.Event()
    futures = [pool.submit(over.wait) for _ in range(20)]
    time.sleep(PATIENCE_S + 0.2)
    assert sum(future.running() for future in futures) == 2
    assert sum(thread.name.startswith("patient") for thread in threading.enumerate()) == 2
    over.set()
    assert all(future.result(timeout=30) for future in futures)
