"""Who is woken when there is room in a queue."""

from __future__ import annotations

from concurrent.futures import Future

from tensign.queue import Queue
from tensign.room import Room


def room_in(queue: Queue) -> Room:
    """Eighty of a hundred rows are a flood's."""
    queue.reserve(80, "flood")
    return Room(queue)


def test_who_has_nothing_there_need_not_wait_and_who_has_much_does() -> None:
    queue = Queue(100)
    room = room_in(queue)
    assert room.wait(20, "other").done() and not room.wait(1, "flood").done()


def test_a_flood_is_woken_when_its_own_share_allows_and_not_before() -> None:
    queue = Queue(100)
    room = room_in(queue)
    queue.reserve(15, "other")
    first, second = room.wait(1, "flood"), room.wait(1, "flood")
    queue.give_back(10, "other")
    room.made()
    assert not first.done()
    queue.give_back(8, "flood")  # 72 rows, and 1 more is four times what is left of 23
    room.made()
    assert first.done() and second.done()
    third = room.wait(30, "flood")
    room.made()
    assert not third.done()


def test_clients_take_turns_and_no_more_are_woken_than_fit() -> None:
    queue = Queue(10)
    queue.reserve(10, "flood")
    room = Room(queue)
    waiting = {name: room.wait(1, name[0]) for name in ("a1", "a2", "a3", "b1", "c1")}
    queue.give_back(2, "flood")
    room.made()
    assert [name for name, future in waiting.items() if future.done()] == ["a1", "b1"]


def test_a_large_request_of_one_who_has_nothing_is_not_passed_over_for_ever() -> None:
    queue = Queue(10)
    queue.reserve(10, "flood")
    room = Room(queue)
    large, small = room.wait(8, "a"), room.wait(1, "b")
    queue.give_back(5, "flood")
    room.made()
    assert not large.done() and not small.done()
    queue.give_back(3, "flood")
    room.made()
    assert large.done() and not small.done()


def test_the_cancelled_are_passed_over_and_an_empty_queue_wakes_everybody() -> None:
    queue = Queue(10)
    queue.reserve(10, "flood")
    room = Room(queue)
    waiting: list[Future[None]] = [room.wait(6, "a") for _ in range(4)]
    waiting[0].cancel()
    queue.give_back(6, "flood")
    room.made()
    assert [future.done() for future in waiting] == [True, True, False, False]
    queue.give_back(4, "flood")
    room.made()
    assert all(future.done() for future in waiting) and not len(room)
