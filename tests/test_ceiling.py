from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

from tensign.ceiling import Ceiling


def test_who_would_go_beyond_the_limit_waits_until_others_are_done() -> None:
    ceiling = Ceiling(100)
    first: Future[Any] = Future()
    second: Future[Any] = Future()
    ceiling.hold(60, first)
    waiting = threading.Thread(target=ceiling.hold, args=(60, second))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive() and ceiling.held == 60
    first.set_result(None)
    waiting.join(10)
    assert not waiting.is_alive() and ceiling.held == 60
    second.cancel()
    assert ceiling.held == 0


def test_what_is_larger_than_all_of_it_is_held_alone() -> None:
    ceiling = Ceiling(100)
    done: Future[Any] = Future()
    ceiling.hold(1000, done)
    done.set_result(None)
    assert ceiling.held == 0


def test_nobody_waits_beyond_the_deadline() -> None:
    ceiling = Ceiling(100)
    ceiling.hold(100, Future())
    ceiling.hold(100, Future(), timeout_s=0.01)
    assert ceiling.held == 200
