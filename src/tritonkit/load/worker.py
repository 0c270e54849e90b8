"""A process that sends its part of a level: `python -m tritonkit.load.worker PORT`, started by
`processes`. PORT is its master's, on this host; it ends when its standard input does.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.socket import wait_read
from locust.env import Environment

from tritonkit.errors import TritonkitError
from tritonkit.load.arrivals import parse_arrivals
from tritonkit.load.distributed import Delivery
from tritonkit.load.generator import Generator, Level, Sending, new_user_class
from tritonkit.load.processes import unpack


def main(port: int) -> None:
    """Send one level's part, as the master says."""
    # gevent's clock stood still during the imports: Locust would not wait for the master's answer,
    # and greet it twice; the master may then count this worker twice when it shares out the users.
    gevent.get_hub().loop.update_now()
    logging.getLogger("locust").setLevel(logging.ERROR)
    user = new_user_class()
    environment = Environment(user_classes=[user], catch_exceptions=False)
    runner = environment.create_worker_runner("127.0.0.1", port)
    prepared: AsyncResult = AsyncResult()  # the Generator, or None if there can be none
    started: AsyncResult = AsyncResult()
    ended = gevent.event.Event()
    stack = ExitStack()

    def begin(said: Mapping[str, Any]) -> None:
        level = Level(**{**said["level"], "arrivals": parse_arrivals(said["level"]["arrivals"])})
        requests = [unpack(request) for request in said["requests"]]
        share = said["index"], said["of"]
        try:
            generator = Generator(
                user, said["address"], requests, level, Sending(**said["sending"]), *share
            )
        except TritonkitError as error:
            delivery.ready(error)
            prepared.set(None)
        else:
            prepared.set(stack.enter_context(generator))

    delivery = Delivery(
        runner, on_begin=begin, on_start=started.set, on_finish=lambda _: ended.set()
    )
    gevent.spawn(lambda: (wait_read(0), ended.set()))
    with stack:
        generator = _first(prepared, ended)
        if generator is None:
            ended.wait()
            return
        while not runner.target_user_count and not ended.is_set():
            gevent.sleep(0.005)
        generator.wait_for_users(runner.target_user_count)
        delivery.ready()
        start_ns = _first(started, ended)
        if start_ns is None:
            return
        delivery.keep_delivering(generator.run)
        generator.send(runner, start_ns, ended.is_set)
        delivery.done(generator.run, cpu=generator.busy, first_in_line=generator.ahead)
    wait_read(0)


def _first(result: AsyncResult, ended: Any) -> Any:
    """The result; None if it ends before there is one."""
    gevent.wait([result, ended], count=1)
    return result.get() if result.ready() else None


if __name__ == "__main__":
    status = 1
    try:
        main(int(sys.argv[1]))
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    # Not a usual exit: it would wait for messages that a master who is gone will never take.
    sys.stderr.flush()
    os._exit(status)
