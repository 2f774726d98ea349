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

    workers.share(work, 2)
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
        workers.share(work, 2)
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
        workers.share(work, 2)
    assert shared(workers, range(5)) == list(range(5))


def test_threads_are_started_when_there_is_work_for_them():
    team = Workers(10**9)
    assert team._threads == []
    for helpers, there in ((1, 1), (3, 3), (2, 3)):
        team.share(lambda: None, helpers)
        assert len(team._threads) == there
    team.close()


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_threads_that_cannot_be_started_are_done_without(monkeypatch, error):
    start, asked = threading.Thread.start, []

    def limited(thread):
        asked.append(thread)
        if len(asked) > 1:
            raise error
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    team = Workers(5)
    for _ in range(3):
        assert shared(team, range(100)) == list(range(100))
    assert (len(team._threads), len(asked)) == (1, 2)
    team.close()
