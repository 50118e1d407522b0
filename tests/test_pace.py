"""What cannot be answered in time is refused, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from tensign.buckets import Buckets
from tensign.errors import DeadlineExceeded
from tensign.pace import Pace
from tensign.request import Request

BUCKETS = Buckets((1, 2, 8), (1.0, 1.5, 4.0))


def request(deadline: float | None) -> Request:
    return Request.of({"x": np.zeros(1)}, deadline)


@pytest.mark.parametrize(
    ("rows", "needed_s"), [(1, 1.0), (2, 1.5), (3, 1.5), (8, 4.0), (15, 4.0), (17, 8.0)], ids=lambda value: f"{value:g}"
)
def test_what_no_batches_could_answer_in_time_is_refused_on_arrival(rows: int, needed_s: float) -> None:
    pace = Pace(BUCKETS, 100.0)
    pace.check(rows, 100.0 + needed_s, 100.0)
    with pytest.raises(DeadlineExceeded, match=rf"of {rows} rows needs about {needed_s * 1000:.1f} ms and"):
        pace.check(rows, 100.0 + needed_s - 0.001, 100.0)


def test_several_lanes_share_what_is_larger_than_a_batch() -> None:
    Pace(BUCKETS, 0.0).check(32, 8.0, 0.0, lanes=2)
    with pytest.raises(DeadlineExceeded):
        Pace(BUCKETS, 0.0).check(32, 8.0, 0.0, lanes=1)


def test_late_is_who_has_less_time_than_the_batch_he_is_in() -> None:
    late, soon, never = request(3.9), request(4.0), request(None)
    pace = Pace(BUCKETS, 0.0)
    assert list(pace.late([late, soon, never], 8, 0.0)) == [late]
    assert pace.late([late, soon, never], 2, 0.0) == {}


def test_a_faster_run_is_believed_and_a_slower_one_is_not() -> None:
    pace = Pace(BUCKETS, 0.0)
    pace.ran(8, 9.0, 1.0)
    assert pace.late([request(4.0)], 8, 0.0) == {}
    pace.ran(8, 2.0, 1.0)
    assert pace.late([request(3.1)], 8, 1.0) == {}
    assert len(pace.late([request(2.9)], 8, 1.0)) == 1


def test_after_some_seconds_without_a_run_one_is_let_happen() -> None:
    pace = Pace(BUCKETS, 0.0)
    pace.check(1, 11.5, 11.0)
    pace.ran(1, 1.0, 11.0)
    with pytest.raises(DeadlineExceeded):
        pace.check(1, 11.5, 11.0)


def test_times_that_were_made_up_refuse_nobody_but_who_is_late_already() -> None:
    pace = Pace(Buckets((1, 2), (1.0, 2.0), measured=False), 0.0)
    pace.check(2, 0.001, 0.0)
    pace.ran(2, 5.0, 0.0)
    assert pace.late([request(0.001)], 2, 0.0) == {}
    with pytest.raises(DeadlineExceeded, match="when the request arrived"):
        pace.check(1, 0.0, 0.0)


def test_a_model_of_whole_requests_was_measured_with_one_row() -> None:
    pace = Pace(Buckets((512,), (1.0,), whole=True), 0.0)
    pace.check(100, 1.0, 0.0)
    assert pace.late([request(1.0)], 100, 0.0) == {}
    with pytest.raises(DeadlineExceeded):
        pace.check(100, 0.9, 0.0)
