import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpn_data.prefetch import prefetch


@settings(max_examples=30, deadline=None)
@given(items=st.lists(st.integers(), max_size=20), ahead=st.integers(1, 5))
def test_items_come_in_order(items, ahead):
    assert list(prefetch(iter(items), ahead)) == items


def test_the_next_items_are_made_before_they_are_asked_for():
    third = threading.Event()

    def items():
        yield 1
        yield 2
        third.set()
        yield 3

    made = prefetch(items())
    assert next(made) == 1
    assert third.wait(5)
    assert list(made) == [2, 3]


def test_no_more_items_are_made_than_asked():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    taken = prefetch(items(), ahead=2)
    next(taken)
    taken.close()
    assert len(made) <= 5


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise OSError("the file ends here")

    taken = prefetch(items())
    assert next(taken) == 1
    with pytest.raises(OSError, match="the file ends here"):
        next(taken)


def test_a_consumer_that_stops_early_stops_the_thread():
    before = threading.active_count()
    taken = prefetch(iter(range(100)))
    next(taken)
    taken.close()
    assert threading.active_count() == before


def test_room_for_nothing_is_an_error():
    with pytest.raises(ValueError, match="ahead must be at least 1, got 0"):
        prefetch([], 0)
