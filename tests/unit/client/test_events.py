"""Events and how hooks are told of them."""

import dataclasses
import logging

import pytest

from tritonkit.client.events import RequestEnded, ServerBack, emit

EVENT = ServerBack("grpc://a:1")


class Broken:
    """A hook that raises; it can be neither hashed nor referred to weakly."""

    __slots__ = ()
    __hash__ = None

    def __call__(self, event):
        raise ValueError("no such file")


def test_every_hook_is_told_in_order():
    """Each hook gets the event, in the order given."""
    told = []
    emit([lambda e: told.append((1, e)), lambda e: told.append((2, e))], EVENT)
    assert told == [(1, EVENT), (2, EVENT)]


def test_events_are_values():
    """An event is equal to one with the same fields, and cannot be changed."""
    event = RequestEnded("m", "", "a", 1, 1, 0.5)
    assert event == RequestEnded("m", "", "a", 1, 1, 0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.rows = 2


def test_failing_hook_stops_nothing():
    """A hook that raises keeps neither the caller nor the next hook from going on."""
    told = []
    emit([Broken(), told.append], EVENT)
    assert told == [EVENT]


def test_failing_hook_is_logged_once(caplog):
    """A hook's first failure is logged with its traceback, its others are not."""
    hooks = [Broken()]
    for _ in range(3):
        emit(hooks, EVENT)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("tritonkit.client", logging.ERROR)
    assert "no such file" in caplog.text


def test_each_failing_hook_is_logged(caplog):
    """That one hook's failure was logged does not silence another's."""

    def other(event):
        raise RuntimeError("the other")

    emit([Broken(), other], EVENT)
    emit([Broken(), other], EVENT)
    assert sum("the other" in r.exc_text for r in caplog.records) == 1


def test_new_hook_in_the_place_of_a_dead_one_is_logged(caplog):
    """Hooks that come and go are each logged, although their addresses are used again."""
    for number in range(20):

        def failing(event, number=number):
            raise RuntimeError(f"number {number}")

        emit([failing], EVENT)
        del failing
    assert len(caplog.records) == 20


def test_interrupts_pass():
    """What is no Exception, such as Ctrl-C, is not swallowed."""

    def interrupted(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        emit([interrupted], EVENT)
