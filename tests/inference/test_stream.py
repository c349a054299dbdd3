"""Threads ahead of a consumer and behind a producer."""

import threading
import time

import pytest

from artifactnet.inference.stream import BackgroundWorker, prefetch, read_ahead


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_prefetch_keeps_order_and_raises_where_it_happens(workers):
    assert list(prefetch(lambda x: x * x, range(50), workers, 3)) == [x * x for x in range(50)]
    results = prefetch(lambda x: 6 // x, [3, 2, 0, 1], workers, 1)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_background_work_is_done_at_the_end(workers):
    done = []
    with BackgroundWorker(workers, 3) as worker:
        for number in range(50):
            worker.do(lambda number=number: (time.sleep(0.001), done.append(number))[1])
            assert number + 1 - len(done) <= 3 + workers
    assert sorted(done) == list(range(50))


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("following", [0, 20])
def test_background_errors_are_raised(workers, following):
    def produce():
        with BackgroundWorker(workers, 3) as worker:
            worker.do(lambda: 1 // 0)
            for _ in range(following):
                worker.do(lambda: None)

    with pytest.raises(ZeroDivisionError):
        produce()


def test_background_work_that_waits_is_dropped_after_an_error():
    started, go, done = threading.Event(), threading.Event(), []

    def first():
        started.set()
        assert go.wait(10)
        done.append("first")

    def produce():
        with BackgroundWorker(1, 5) as worker:
            worker.do(first)
            assert started.wait(10)
            worker.do(lambda: done.append("second"))
            threading.Timer(0.2, go.set).start()
            raise KeyError("the producer's own")

    with pytest.raises(KeyError):
        produce()
    assert done == ["first"]


def test_read_ahead_keeps_order_and_is_bounded():
    taken = []
    items = read_ahead((taken.append(k) or k for k in range(50)), 3)
    assert taken == []
    assert [next(items), next(items)] == [0, 1]
    time.sleep(0.3)
    assert len(taken) <= 2 + 3 + 1
    assert list(items) == list(range(2, 50))


def test_read_ahead_raises_where_it_happens():
    items = read_ahead((6 // k for k in [3, 2, 0, 1]), 1)
    assert [next(items), next(items)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_read_ahead_ends_its_thread_with_the_consumer():
    closed = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    before = threading.active_count()
    items = read_ahead(endless(), 2)
    assert next(items) == 1
    items.close()
    assert threading.active_count() == before
