"""The times of an answer's stages, for whoever asks for them."""

from __future__ import annotations

from tensign._pb import open_inference_pb2 as pb
from tensign.errors import InvalidInput
from tensign.request import Formed, Outputs
from tensign.rpc.codec import TIMINGS


def wants_timings(request: pb.ModelInferRequest) -> bool:
    """Whether a request asks for them. Raises InvalidInput."""
    if TIMINGS not in request.parameters:
        return False
    asked = request.parameters[TIMINGS]
    if asked.WhichOneof("parameter_choice") != "bool_param":
        raise InvalidInput(f'parameter "{TIMINGS}": wanted a bool')
    return asked.bool_param


def timings(outputs: Outputs, receive_ns: int, send_ns: int) -> dict[str, int]:
    """The parameters that `codec.TIMINGS` describes, as far as they are known."""
    found = {"receive_us": receive_ns // 1000}
    if isinstance(outputs, Formed) and (batches := outputs.ran):
        largest = max(batches, key=lambda ran: ran.rows)
        found |= {
            "decode_us": (outputs.enqueued_ns - outputs.reserved_ns) // 1000,
            "queue_us": (min(ran.began_ns for ran in batches) - outputs.enqueued_ns) // 1000,
            "input_us": sum(ran.gathered_ns - ran.began_ns for ran in batches) // 1000,
            "compute_us": sum(ran.computed_ns - ran.gathered_ns for ran in batches) // 1000,
            "output_us": (sum(ran.split_ns - ran.computed_ns for ran in batches) + send_ns) // 1000,
            "batch_rows": largest.rows,
            "batch_bucket": largest.bucket,
        }
    return found
