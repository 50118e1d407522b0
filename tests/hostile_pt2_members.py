"""Exported programs whose members want to run code, to crash or to exhaust their reader: weights, constants, the zip itself."""

from __future__ import annotations

import json
import zipfile
from typing import Any

from hostile_pickles import LINK, RUN, TOUCH, call, dict_of, named, packed, tensor, whole, zipped
from pt2_archives import P_WEIGHT, RELU, WEIGHT, Cases, Json, X, archive, flat, meta, payload, program, ref, sizes

PICKLED = zipped(RUN)
STATE = zipped(dict_of({"weight": tensor()}), storages=(WEIGHT,))


def payloads() -> Cases:
    def constant(file: str, content: bytes = PICKLED) -> bytes:
        spec = {"tensor_constant": {"arg": {"name": "more"}, "tensor_constant_name": "evil"}}
        document = program(inputs=[P_WEIGHT, X, spec])
        return archive(document, (f"model/data/constants/{file}", content), constants={"evil": payload(file, pickled=True)})

    def weight(**said: Any) -> bytes:
        return archive(weights={"weight": payload(**said)})

    together = "model/data/weights/model.pt"
    rebuilt = zipped(dict_of({"weight": call(named("torch._utils", "_rebuild_tensor_v2"), RUN, RUN, RUN, RUN)}))
    hooked = zipped(dict_of({"weight": tensor(hooks=RUN)}), storages=(WEIGHT,))
    many = {"weight": payload(), "again": payload(dtype=5)}
    again: Json = {"buffer": {"arg": {"name": "more"}, "buffer_name": "again", "persistent": True}}
    return {
        "a pickled weight": (
            archive(None, ("model/data/weights/weight_1", PICKLED), weights={"weight": payload("weight_1", pickled=True)}),
            "no tensor but os.system",
        ),
        "an object": (constant("custom_obj_0"), "an object of the file's own"),
        "an opaque object": (constant("opaque_obj_0", whole(RUN)), "an object of the file's own"),
        "a pickled constant": (constant("tensor_0"), "no tensor but os.system"),
        "sample inputs": (
            archive(None, ("model/data/sample_inputs/model.pt", PICKLED), without=("data/sample_inputs/model.pt",)),
            "",
        ),
        "weights in one pickle": (archive(None, (together, zipped(dict_of({"weight": RUN})))), "no tensor but os.system"),
        "weights that are a call": (archive(None, (together, PICKLED)), "not in the file"),
        "weights by a call of torch's": (archive(None, (together, rebuilt)), "whose storage is none"),
        "weights with hooks": (archive(None, (together, hooked)), ""),
        "weights in no pickle": (archive(None, (together, TOUCH.encode())), "a broken zip"),
        "2.7: weights that are a call": (flat(PICKLED), "not in the file"),
        "2.7: a weight that is a call": (flat(zipped(dict_of({"weight": RUN}))), "no tensor but os.system"),
        "2.7: example inputs": (flat(STATE, **{"serialized_example_inputs.pt": PICKLED}), ""),
        "2.7: constants": (flat(STATE, **{"serialized_constants.pt": PICKLED}), ""),
        "beyond its bytes": (
            archive(weights={"weight": payload() | {"tensor_meta": meta(1 << 20, 1 << 20)}}),
            "in a storage of 4 elements",
        ),
        "strides beyond its bytes": (weight(strides=sizes(1 << 40, 1)), "in a storage of 4 elements"),
        "negative strides": (weight(strides=sizes(-1, 1)), "no count"),
        "a negative offset": (weight(offset=-4), "no count"),
        "an offset beyond its bytes": (weight(offset=1 << 40), "in a storage of 4 elements"),
        "strides of one axis": (weight(strides=sizes(1)), "2 sizes and 1 strides"),
        "a type that is none": (weight(dtype=99), "a type that is not known"),
        "half a number": (
            archive(None, ("model/data/weights/weight_1", b"123"), weights={"weight": payload("weight_1")}),
            "has 3 bytes",
        ),
        "a member that is not there": (archive(weights={"weight": payload("weight_7")}), "is not there"),
        "a member elsewhere": (archive(weights={"weight": payload("../../../etc/passwd")}), "an object of the file's own"),
        "one member of two types": (
            archive(program(inputs=[P_WEIGHT, X, again]), weights=many),
            "is float32 here and int64 there",
        ),
    }


def containers() -> Cases:
    document = json.dumps(program()).encode()
    twice = document[:-1] + b', "schema_version": {"major": 8}}'
    steps = [RELU | {"outputs": [ref(f"v{index}")]} for index in range(100_001)]
    bomb = packed(
        ("model/archive_format", b"pt2"), ("model/models/model.json", bytes(1 << 26)), compression=zipfile.ZIP_DEFLATED
    )
    return {
        "compiled code": (archive(None, ("model/data/aotinductor/model/evil.so", b"\x7fELF")), "compiled code"),
        "nothing but compiled code": (
            archive(None, ("model/data/aotinductor/model/evil.so", b"\x7fELF"), without=("models/model.json",)),
            "compiled code",
        ),
        "two programs": (archive(None, ("model/models/evil.json", document)), "2 programs"),
        "no program": (archive(without=("models/model.json",)), "0 programs"),
        "no weights": (archive(without=("data/weights/model_weights_config.json",)), "without the member"),
        "two members of a name": (archive(None, ("model/models/model.json", document)), "two members of the name"),
        "a member that leads elsewhere": (archive(None, ("../evil.pth", b"")), "leads elsewhere"),
        "a link": (archive(None, (LINK, b"/etc/passwd")), "a zip with a link"),
        "a bomb": (bomb, "compressed or encrypted"),
        "another byte order": (archive(None, ("model/byteorder", b"big"), without=("byteorder",)), "not little-endian"),
        "no JSON": (archive(TOUCH.encode()), "is no JSON"),
        "no UTF-8": (archive(b"\xff\xfe"), "is no JSON"),
        "a list": (archive(b"[]"), "wanted its schema_version"),
        "JSON nested deep": (archive(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "too deep"),
        "JSON of a huge number": (archive(b'{"schema_version": ' + b"9" * 100_000 + b"}"), "is no JSON"),
        "a field twice": (archive(twice), "two fields of one name"),
        "too many steps": (archive(program(*steps)), "more than 100000 steps"),
    }
