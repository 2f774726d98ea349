"""Threads that take part in pieces of work, asleep or awake."""

from __future__ import annotations

import threading
import time

import pytest

from solvers.ensemble.workers import Workers


@pytest.fixture
def workers():
    team = Workers(2)
    yield team
    team.close()
    assert not any(thread.is_alive() for thread in team._threads)


def shared(workers, items):
    done, turns = [], iter(items)

    def work():
        for item in turns:
            done.append(item)

    workers.share(work)
    return sorted(done)


@pytest.mark.parametrize("pause", [0.0, 0.02])  # the second is longer than a thread looks out before it sleeps
def test_every_item_is_done_once(workers, pause):
    for count in range(30):
        assert shared(workers, range(count)) == list(range(count))
        time.sleep(pause)


def test_others_take_part_and_have_ended_when_the_call_returns(workers):
    ended, barrier = [], threading.Barrier(3, timeout=30)

    def work():
        barrier.wait()  # needs all three
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.05)
        ended.append(threading.get_ident())

    for _ in range(3):
        workers.share(work)
    assert len(ended) == 9
    assert len(set(ended)) == 3


@pytest.mark.parametrize("here", [True, False])
def test_errors_are_raised_here_and_the_threads_go_on(workers, here):
    barrier = threading.Barrier(3, timeout=30)

    def work():
        barrier.wait()
        if (threading.current_thread() is threading.main_thread()) == here:
            raise ZeroDivisionError("as asked")

    with pytest.raises(ZeroDivisionError, match="as asked"):
        workers.share(work)
    assert shared(workers, range(5)) == list(range(5))
