"""Files that want to run code, to crash or to exhaust their reader: `python tests/hostile_pickles.py FOLDER` writes them all.

Each is given as model.fastai. Those that would run something would touch the file of TENSIGN_CANARY; `says` is what the reader
answers, "" where the hostile part stays inert and the rest is read. Pickles are put together by hand from opcodes, so that
no class need exist and none need be willing.
"""
# ruff: noqa: E501

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

TOUCH = "import os; open(os.environ['TENSIGN_CANARY'], 'w').close()"
SHELL = 'touch "$TENSIGN_CANARY"'
Code = bytes


@dataclass(frozen=True, slots=True)
class Hostile:
    """A file: its name, its bytes, and words of the refusal; none where it is read, its hostile part inert."""

    name: str
    content: bytes
    says: str


# -- an assembler of pickles: each gives opcodes that leave one value on the stack


def text(value: str) -> Code:
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def blob(value: bytes) -> Code:
    return b"B" + struct.pack("<I", len(value)) + value


def number(value: int) -> Code:
    return b"\x8a" + bytes([len(encoded := pickle.encode_long(value))]) + encoded


def tuple_of(*values: Code) -> Code:
    return b"(" + b"".join(values) + b"t"


def list_of(*values: Code) -> Code:
    return b"](" + b"".join(values) + b"e"


def dict_of(pairs: dict[str, Code]) -> Code:
    return b"}(" + b"".join(text(key) + value for key, value in pairs.items()) + b"u"


def named(module: str, name: str) -> Code:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def call(callee: Code, *args: Code) -> Code:
    return callee + tuple_of(*args) + b"R"


def made(module: str, name: str, state: Code = b"", *args: Code) -> Code:
    return named(module, name) + tuple_of(*args) + b"\x81" + (state + b"b" if state else b"")


def whole(body: Code, protocol: int = 2) -> Code:
    return b"\x80" + bytes([protocol]) + body + b"."


NONE, TRUE, FALSE, EMPTY = b"N", b"\x88", b"\x89", b"}"
RUN = call(named("os", "system"), text(SHELL))
ORDERED = call(named("collections", "OrderedDict"))


def storage(kind: str = "FloatStorage", key: str = "0", count: int = 4, module: str = "torch") -> Code:
    identity = tuple_of(text("storage"), named(module, kind), text(key), text("cpu"), number(count))
    return identity + b"Q"


def tensor(size: Code = b"", stride: Code = b"", offset: int = 0, of: Code = b"", hooks: Code = ORDERED) -> Code:
    size, stride = size or tuple_of(number(2), number(2)), stride or tuple_of(number(2), number(1))
    return call(named("torch._utils", "_rebuild_tensor_v2"), of or storage(), number(offset), size, stride, FALSE, hooks)


def parameter(of: Code = b"") -> Code:
    return call(named("torch._utils", "_rebuild_parameter"), of or tensor(), TRUE, ORDERED)


def module(home: str = "torch.nn.modules.linear", name: str = "Identity", **changes: Code) -> Code:
    """A module: its state is that of an empty one but for the changes."""
    state: dict[str, Code] = {"training": FALSE, "_parameters": EMPTY, "_buffers": EMPTY, "_modules": EMPTY, **changes}
    return made(home, name, dict_of(state))


def linear(**changes: Code) -> Code:
    state = {"_parameters": dict_of({"weight": parameter(), "bias": NONE}), "in_features": number(2), "out_features": number(2)}
    return module("torch.nn.modules.linear", "Linear", **{**state, **changes})


def listed(*items: Code) -> Code:
    return made("fastcore.foundation", "L", dict_of({"items": list_of(*items)}))


def pipeline(*transforms: Code) -> Code:
    return made("fastcore.transform", "Pipeline", dict_of({"fs": listed(*transforms)}))


def learner(network: Code, *, item: Code = b"", batch: Code = b"", loss: Code = b"", extra: Code = b"") -> Code:
    """A whole Learner as fastai 2.7 would pickle it, with the network and the parts given."""
    scale = made("fastai.data.transforms", "IntToFloatTensor", dict_of({"div": b"G" + struct.pack(">d", 255.0)}))
    vocab = made("fastai.data.transforms", "CategoryMap", dict_of({"items": listed(text("no"), text("yes"))}))
    categorize = made("fastai.data.transforms", "Categorize", dict_of({"vocab": vocab}))
    lists = [
        made(
            "fastai.data.core",
            "TfmdLists",
            dict_of({"tfms": pipeline(), "types": list_of(named("fastai.vision.core", "PILImage"))}),
        ),
        made("fastai.data.core", "TfmdLists", dict_of({"tfms": pipeline(categorize), "types": list_of()})),
    ]
    dataset = made("fastai.data.core", "Datasets", dict_of({"tls": listed(*lists)}))
    after = {"after_item": item or pipeline(), "before_batch": pipeline(), "after_batch": batch or pipeline(scale)}
    loader = made("fastai.data.core", "TfmdDL", dict_of({**after, "dataset": dataset}))
    dls = made("fastai.data.core", "DataLoaders", dict_of({"loaders": list_of(loader, loader)}))
    loss = loss or made("fastai.losses", "CrossEntropyLossFlat", dict_of({"axis": number(-1)}))
    state = {"dls": dls, "model": network, "loss_func": loss, **({"extra": extra} if extra else {})}
    return made("fastai.learner", "Learner", dict_of(state))


# -- containers


def zipped(body: Code, *more: tuple[str, bytes], storages: tuple[bytes, ...] = (bytes(16),), top: str = "model") -> bytes:
    members = [(f"{top}/data.pkl", whole(body)), (f"{top}/byteorder", b"little"), (f"{top}/version", b"3\n")]
    return packed(*members, *((f"{top}/data/{key}", content) for key, content in enumerate(storages)), *more)


def packed(*members: tuple[str, bytes] | tuple[zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    import warnings

    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of names that come twice
        for name, content in members:
            archive.writestr(name, content, compression)
    return stream.getvalue()


def legacy(body: Code, *, keys: Code = b"", storages: bytes = b"", information: Code = b"") -> bytes:
    """torch's stream of before 1.6."""
    magic, protocol = whole(number(0x1950A86A20F9469CFC6C)), whole(number(1001))
    information = whole(information or dict_of({"little_endian": TRUE}))
    return magic + protocol + information + whole(body) + whole(keys or list_of()) + storages


def legacy_storage(count: int = 4, view: Code = NONE, kind: str = "FloatStorage") -> Code:
    return tuple_of(text("storage"), named("torch", kind), text("0"), text("cpu"), number(count), view) + b"Q"


GOOD = learner(linear())
LINK = zipfile.ZipInfo("model/link")
LINK.external_attr = 0o120777 << 16


def lying_local_header() -> bytes:
    """The zip's directory says one length, the member's own header another."""
    content = bytearray(zipped(GOOD))
    at = content.index(b"PK\x03\x04") + 22
    content[at : at + 4] = struct.pack("<I", 1 << 30)
    return bytes(content)


def lying_directory(size: int) -> bytes:
    content = bytearray(zipped(GOOD))
    at = content.index(b"PK\x01\x02")
    content[at + 20 : at + 28] = struct.pack("<II", size, size)
    return bytes(content)


def wrong_checksum() -> bytes:
    content = bytearray(zipped(GOOD))
    at = content.rindex(bytes(16))
    content[at] = 1
    return bytes(content)


def overlapping() -> bytes:
    """Members that all point at the same bytes: a bomb without compression."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model/data.pkl", whole(GOOD))
        archive.writestr("model/data/0", bytes(1 << 16))
        first = archive.getinfo("model/data/0")
        for key in range(1, 200):
            again = zipfile.ZipInfo(f"model/data/{key}")
            again.header_offset, again.file_size, again.compress_size, again.CRC = (
                first.header_offset,
                1 << 16,
                1 << 16,
                first.CRC,
            )
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
    return stream.getvalue()


def files() -> list[Hostile]:
    """All of them."""
    found = [Hostile(f"{kind}: {name}", content, says) for kind, make in _KINDS.items() for name, content, says in make()]
    assert len({each.name for each in found}) == len(found)
    return found


Case = tuple[str, bytes, str]


def _calls() -> list[Case]:
    """The root itself would run something."""
    getattr_ = named("builtins", "getattr")
    chain = call(getattr_, call(getattr_, named("os", "path"), text("os")), text("system"))
    cases = {
        "os.system": RUN,
        "posix.system": call(named("posix", "system"), text(SHELL)),
        "subprocess.Popen": call(named("subprocess", "Popen"), list_of(text("/bin/sh"), text("-c"), text(SHELL))),
        "builtins.eval": call(named("builtins", "eval"), text(f"exec({TOUCH!r})")),
        "builtins.exec": call(named("builtins", "exec"), text(TOUCH)),
        "__builtin__.execfile": call(named("__builtin__", "execfile"), text("/tmp/never")),
        "builtins.__import__": call(named("builtins", "__import__"), text("antigravity")),
        "builtins.compile": call(named("builtins", "exec"), call(named("builtins", "compile"), text(TOUCH), text("x"), text("exec"))),
        "a getattr chain": call(chain, text(SHELL)),
        "a dotted name": call(b"\x8c\x04path\x8c\x09os.system\x93", text(SHELL)),
        "operator.attrgetter": call(call(named("operator", "attrgetter"), text("system")), named("os", "")),
        "operator.methodcaller": call(call(named("operator", "methodcaller"), text("system"), text(SHELL)), named("os", "path")),
        "functools.partial": call(call(named("functools", "partial"), named("os", "system"), text(SHELL))),
        "functools.reduce": call(named("functools", "reduce"), named("os", "system"), list_of(text(SHELL)), text("")),
        "builtins.map": call(named("builtins", "list"), call(named("builtins", "map"), named("os", "system"), list_of(text(SHELL)))),
        "runpy.run_path": call(named("runpy", "run_path"), text("/tmp/never")),
        "importlib.import_module": call(named("importlib", "import_module"), text("antigravity")),
        "ctypes.CDLL": call(named("ctypes", "CDLL"), text("/tmp/never.so")),
        "shutil.rmtree": call(named("shutil", "rmtree"), text("/tmp/never")),
        "builtins.breakpoint": call(named("builtins", "breakpoint")),
        "copyreg.__newobj__": call(named("copyreg", "__newobj__"), named("subprocess", "Popen"), text(SHELL)),
        "copyreg._reconstructor": call(named("copy_reg", "_reconstructor"), named("subprocess", "Popen"), named("builtins", "object"), NONE),
        "copyreg.add_extension": call(named("copyreg", "add_extension"), text("os"), text("system"), number(7)),
        "INST": b"(" + text(SHELL) + b"ios\nsystem\n",
        "OBJ": b"(" + named("os", "system") + text(SHELL) + b"o",
        "NEWOBJ": named("subprocess", "Popen") + tuple_of(text(SHELL)) + b"\x81",
        "NEWOBJ_EX": named("subprocess", "Popen") + tuple_of(text(SHELL)) + dict_of({"shell": TRUE}) + b"\x92",
        "pickle.loads in pickle": call(named("pickle", "loads"), blob(whole(RUN))),
        "torch.load in pickle": call(named("torch", "load"), call(named("io", "BytesIO"), blob(legacy(RUN)))),
        "torch.storage._load_from_bytes": call(named("torch.storage", "_load_from_bytes"), blob(legacy(RUN))),
        "torch.jit.load": call(named("torch.jit", "load"), text("/tmp/never")),
        "torch.hub.load": call(named("torch.hub", "load"), text("a/b"), text("c")),
        "joblib.load": call(named("joblib", "load"), text("/tmp/never")),
        "numpy.load": call(named("numpy", "load"), text("/tmp/never.npy"), NONE, TRUE),
        "numpy f2py": call(named("numpy.testing._private.utils", "runstring"), text(TOUCH), dict_of({})),
        "cloudpickle._make_function": call(named("cloudpickle.cloudpickle", "_make_function"), call(named("cloudpickle.cloudpickle", "_builtin_type"), text("CodeType")), NONE, NONE, NONE, NONE),
        "cloudpickle.subimport": call(named("cloudpickle.cloudpickle", "subimport"), text("antigravity")),
        "timeit": call(named("timeit", "timeit"), text(TOUCH)),
        "pdb": call(named("pdb", "run"), text(TOUCH)),
        "webbrowser": call(named("webbrowser", "open"), text("http://127.0.0.1:1/")),
        "dill._create_type": call(named("dill._dill", "_create_type"), named("builtins", "type"), text("X"), tuple_of(), dict_of({})),
    }  # fmt: skip
    return [(name, zipped(body), "wanted a fastai Learner, got ") for name, body in cases.items()]


def _containers() -> list[Case]:
    """The same, where no zip is wanted: plain pickles of every protocol, and torch's older stream."""
    plain = b"cos\nsystem\n(S'" + SHELL.encode().replace(b"'", b"\\'") + b"'\ntR."
    return [
        ("protocol 0", plain, "wanted a fastai Learner, got os.system"),
        ("protocol 4", pickle.dumps([1], 4)[:-1] + b"0" + RUN + b".", "wanted a fastai Learner, got os.system"),
        ("protocol 5 frames", b"\x80\x05\x95" + struct.pack("<Q", 1 << 62) + RUN + b".", "wanted a fastai Learner, got os.system"),
        ("protocol 9", b"\x80\x09" + RUN + b".", "protocol 9"),
        ("older stream", legacy(RUN), "wanted a fastai Learner, got os.system"),
        ("older stream, hostile information", legacy(GOOD, information=RUN), "not little-endian"),
        ("older stream, hostile keys", legacy(NONE, keys=list_of(RUN)), "list of storages"),
        ("older stream, a persistent id in its keys", legacy(NONE, keys=storage()), "where none belongs"),
        ("older stream, hostile class source", legacy(tuple_of(text("module"), RUN, text("x.py"), text(TOUCH)) + b"Q"), "persistent id"),
        ("older stream, a storage longer than the file", legacy(legacy_storage(1 << 40), keys=list_of(text("0")), storages=struct.pack("<q", 1 << 40)), "ends within it"),
        ("older stream, another count", legacy(legacy_storage(), keys=list_of(text("0")), storages=struct.pack("<q", 5) + bytes(20)), "another number"),
        ("older stream, a negative count", legacy(legacy_storage(-4), keys=list_of(text("0"))), "a storage of a kind"),
        ("older stream, a view", legacy(legacy_storage(view=tuple_of(text("1"), number(0), number(4)))), "a view of another"),
        ("two pickles", whole(NONE) + whole(RUN), "wanted a fastai Learner, got NoneType"),
        ("empty", b"", "empty"),
        ("text", b"import os\n", "broken pickle"),
        ("joblib", b"\x80\x03cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81.", "wanted a fastai Learner, got joblib"),
        ("pickled numpy objects", whole(call(named("numpy.core.multiarray", "_reconstruct"), named("numpy", "ndarray"), tuple_of(number(0)), blob(b"b")) + tuple_of(number(1), tuple_of(number(1)), call(named("numpy", "dtype"), text("O8")), FALSE, list_of(RUN)) + b"b"), "wanted a fastai Learner, got numpy"),
    ]  # fmt: skip


def _machine() -> list[Case]:
    """Pickles that break a machine's rules, or are large where they look small."""
    deep_list = b"]" * 100_000 + b"a" * 99_999
    deep_tuple = b")" + b"\x85" * 200_000
    laugh = b"]p30\n" + b"".join(
        b"0](" + f"g{30 + level}\n".encode() * 10 + f"ep{31 + level}\n".encode() for level in range(40)
    )
    cases = {
        "cut short": (GOOD[:200], "broken pickle"),
        "without STOP": (b"", "broken pickle"),
        "an empty stack": (b"R", "broken pickle"),
        "no mark": (b"t", "broken pickle"),
        "a memo never written": (b"h\x05", "broken pickle"),
        "a memo at 2^32-1": (NONE + b"r\xff\xff\xff\xff", "wanted a fastai Learner"),
        "a text longer than the file": (b"X\xff\xff\xff\x7f", "broken pickle"),
        "bytes of 2^62": (b"\x8e" + struct.pack("<Q", 1 << 62), "broken pickle"),
        "bytes of 2^64-1": (b"\x8e" + b"\xff" * 8, "broken pickle"),
        "a bytearray of 2^62": (b"\x96" + struct.pack("<Q", 1 << 62), "broken pickle"),
        "an integer of a negative length": (b"\x8b\xff\xff\xff\xff", "broken pickle"),
        "an integer of a million digits": (b"L" + b"9" * 1_000_000 + b"L\n", "broken pickle"),
        "text that is no UTF-8": (b"X\x02\x00\x00\x00\xff\xfe", "broken pickle"),
        "an extension": (b"\x82\x07", "opcode EXT1"),
        "an out-of-band buffer": (b"\x97", "opcode NEXT_BUFFER"),
        "an unknown opcode": (b"\xff", "broken pickle"),
        "a state for a list": (b"]" + EMPTY + b"b", "sets the state of list"),
        "a state for a class": (named("torch.nn.modules.linear", "Linear") + dict_of({"forward": RUN}) + b"b", "sets the state of"),
        "a call of text": (text("os.system") + tuple_of(text(SHELL)) + b"R", "it calls str"),
        "a name of a number": (number(1) + text("system") + b"\x93", "a name of int"),
        "items of a tuple": (b")" + NONE + b"a", "appends to tuple"),
        "items of None": (NONE + text("a") + NONE + b"s", "sets items of NoneType"),
        "lists 100,000 deep": (deep_list, "wanted a fastai Learner, got list"),
        "tuples 200,000 deep": (deep_tuple, "wanted a fastai Learner, got tuple"),
        "tuples 200,000 deep as a key": (b"}" + deep_tuple + NONE + b"s", "wanted a fastai Learner, got Entries"),
        "calls of calls 100,000 deep": (named("a", "b") + b")R" * 100_000, "wanted a fastai Learner, got "),
        "within itself": (b"]q\x00h\x00a", "wanted a fastai Learner, got list"),
        "ten to the fortieth items": (laugh, "wanted a fastai Learner, got list"),
        "three million opcodes": (b"N0" * 1_500_000 + NONE, "more than 2000000 opcodes"),
        "a persistent id that is text": (b"Pos.system\n", "names no storage"),
        "a persistent id of a call": (tuple_of(text("storage"), RUN, text("0"), text("cpu"), number(1)) + b"Q", "a storage of a kind that is not known"),
        "a persistent id of another class": (storage("system", module="os"), "a storage of a kind that is not known"),
        "a persistent id of numbers": (tuple_of(number(1), number(2), number(3), number(4), number(5)) + b"Q", "names no storage"),
        "a storage that leads elsewhere": (storage(key="../../../../etc/passwd"), "is not there"),
        "a storage of another length": (storage(count=5), "the member has 16 bytes"),
        "a storage of 2^60": (storage(count=1 << 60), "the member has 16 bytes"),
        "a storage of two types": (tuple_of(storage(), storage("IntStorage")), "of float32 here and"),
    }  # fmt: skip
    return [(name, zipped(body), says) for name, (body, says) in cases.items()]


def _zips() -> list[Case]:
    good = whole(GOOD)
    return [
        ("a member that leads out", packed(("model/data.pkl", good), ("../../tmp/never", b"x")), "leads elsewhere"),
        ("an absolute member", packed(("model/data.pkl", good), ("/tmp/never", b"x")), "leads elsewhere"),
        ("a backslash", packed(("model/data.pkl", good), ("model\\..\\never", b"x")), "leads elsewhere"),
        ("two pickles of one name", packed(("model/data.pkl", good), ("model/data.pkl", whole(RUN))), "two members of the name"),
        ("two pickles", packed(("model/data.pkl", good), ("other/data.pkl", whole(RUN))), "2 data.pkl"),
        ("no pickle", packed(("model/version", b"3")), "0 data.pkl"),
        ("a link", packed(("model/data.pkl", good), (LINK, b"/etc/passwd")), "a link"),
        ("a bomb", packed(("model/data.pkl", good), ("model/data/0", bytes(50_000_000)), compression=zipfile.ZIP_DEFLATED), "compressed"),
        ("a compressed pickle", packed(("model/data.pkl", whole(RUN)), compression=zipfile.ZIP_DEFLATED), "compressed"),
        ("members that overlap", overlapping(), "more than the file has"),
        ("a large pickle", packed(("model/data.pkl", bytes((64 << 20) + 1))), "at most"),
        ("a local header that lies", lying_local_header(), ""),
        ("a directory that claims more", lying_directory(1 << 29), "more than the file has"),
        ("a directory that claims less", lying_directory(3), "data.pkl"),
        ("a wrong checksum", wrong_checksum(), "BadZipFile"),
        ("cut in half", zipped(GOOD)[:900], "broken zip"),
        ("only a signature", b"PK\x03\x04", "broken zip"),
        ("big-endian", packed(("model/data.pkl", good), ("model/byteorder", b"big")), "not little-endian"),
        ("TorchScript", zipped(GOOD, ("model/constants.pkl", whole(RUN)), ("model/code/x.py", TOUCH.encode())), "TorchScript"),
        ("a module of Python beside", zipped(GOOD, ("torch.py", TOUCH.encode()), ("model/__main__.py", TOUCH.encode())), ""),
    ]  # fmt: skip


def _tensors() -> list[Case]:
    def weight(of: Code) -> Code:
        return learner(linear(_parameters=dict_of({"weight": parameter(of), "bias": NONE})))

    cases = {
        "larger than its storage": (tensor(tuple_of(number(2), number(3)), tuple_of(number(3), number(1))), "in a storage of 4"),
        "strides beyond": (tensor(stride=tuple_of(number(100), number(1))), "in a storage of 4"),
        "an offset beyond": (tensor(offset=3), "in a storage of 4"),
        "a negative offset": (tensor(offset=-1), "is no count"),
        "a negative stride": (tensor(stride=tuple_of(number(-2), number(1))), "is no count"),
        "10^12 elements of one": (tensor(tuple_of(number(10**6), number(10**6)), tuple_of(number(0), number(0))), "in a storage of 4"),
        "sizes that overflow": (tensor(tuple_of(number(1 << 47), number(1 << 47)), tuple_of(number(1), number(1))), "in a storage of 4"),
        "no elements, 10^9 sizes of 2^40": (tensor(tuple_of(number(0), number(1 << 47), number(1 << 47)), tuple_of(number(1), number(1), number(1))), "overflow"),
        "a size of text": (tensor(tuple_of(text("2"), text("2"))), "is no count"),
        "a size of a call": (tensor(RUN), "is no count"),
        "a storage of a call": (tensor(of=RUN), "whose storage is none"),
        "hooks": (tensor(hooks=RUN), ""),
        "of a hostile class": (call(named("torch._tensor", "_rebuild_from_type_v2"), named("os", "system"), named("os", "system"), tuple_of(text(SHELL)), RUN), "a tensor made by os.system"),
        "of a subclass with a state": (call(named("torch._tensor", "_rebuild_from_type_v2"), named("torch._utils", "_rebuild_tensor_v2"), named("subprocess", "Popen"), tuple_of(storage(), number(0), tuple_of(number(2), number(2)), tuple_of(number(2), number(1)), FALSE, ORDERED), dict_of({"__setstate__": RUN})), ""),
        "sparse": (call(named("torch._utils", "_rebuild_sparse_tensor"), RUN, RUN), "which is no plain dense one"),
        "quantized": (call(named("torch._utils", "_rebuild_qtensor"), storage(), number(0)), "which is no plain dense one"),
        "nested files": (tensor(of=call(named("torch.storage", "_load_from_bytes"), blob(legacy(RUN)))), "whose storage is none"),
    }  # fmt: skip
    return [(name, zipped(weight(parameter(of) if name == "hooks" else of)), says) for name, (of, says) in cases.items()]


def _modules() -> list[Case]:
    relu = module("torch.nn.modules.activation", "ReLU", inplace=FALSE)
    hook = call(named("collections", "OrderedDict"), list_of(list_of(number(1), named("os", "system"))))
    lambda_ = module("fastai.layers", "Lambda", func=call(named("functools", "partial"), named("os", "system")))
    sequential = dict_of({"0": linear(), "1": RUN})
    loop = (
        named("torch.nn.modules.container", "Sequential")
        + b")\x81q\x09"
        + dict_of({"_modules": dict_of({"0": b"h\x09"})})
        + b"b"
    )
    deep = linear()
    for _ in range(200):
        deep = module("torch.nn.modules.container", "Sequential", _modules=dict_of({"0": deep}))
    cases = {
        "a class of __main__": (module("__main__", "Net"), "the network itself is of class __main__.Net"),
        "a class of os": (made("os", "system", dict_of({})), "is of class os.system"),
        "a custom class within": (module("torch.nn.modules.container", "Sequential", _modules=dict_of({"head": module("mymodels", "Head")})), '"head" is of class mymodels.Head'),
        "a module that is a call": (module("torch.nn.modules.container", "Sequential", _modules=sequential), '"1" is of class os.system'),
        "made with arguments": (made("torch.nn.modules.linear", "Linear", b"", text(SHELL)), "is of class torch.nn.modules.linear.Linear"),
        "torch.nn.Module itself": (module("torch.nn.modules.module", "Module"), "is of class torch.nn.modules.module.Module"),
        "a re-export": (module("torch.nn.modules.linear", "Module"), "is of class torch.nn.modules.linear.Module"),
        "a function for a class": (module("torch.nn.modules.linear", "init"), "is of class torch.nn.modules.linear.init"),
        "a dotted class": (module("torch.nn.modules.linear", "Linear.forward"), "is of class torch.nn.modules.linear.Linear.forward"),
        "a dunder": (module("torch.nn.modules.linear", "__loader__"), "is of class torch.nn.modules.linear.__loader__"),
        "a lazy one": (module("torch.nn.modules.linear", "LazyLinear"), "is of class torch.nn.modules.linear.LazyLinear"),
        "a library's test file": (module("torchvision.models.../../x", "X"), "is of class torchvision.models"),
        "the debugger": (module("fastai.layers", "Debugger"), "is of class fastai.layers.Debugger"),
        "torch.jit": (module("torch.jit._script", "RecursiveScriptModule"), "is of class torch.jit"),
        "torch.fx": (call(named("torch.fx.graph_module", "reduce_graph_module"), dict_of({"_code": text(TOUCH)}), text("")), "is of class torch.fx"),
        "forward hooks": (linear(_forward_hooks=hook), "functions that only the file itself can say"),
        "forward pre-hooks": (linear(_forward_pre_hooks=hook), "functions that only the file itself can say"),
        "state hooks": (linear(_state_dict_hooks=hook, _load_state_dict_pre_hooks=hook, _backward_hooks=hook), ""),
        "hooks of the wrong kind": (linear(_forward_hooks=RUN), "whose parts are no dict"),
        "a forward of its own": (linear(forward=named("os", "system")), "whose forward is another"),
        "a __call__ of its own": (linear(__call__=named("os", "system")), ""),
        "a __class__ of its own": (linear(__class__=named("os", "system")), ""),
        "a compiled call": (linear(_compiled_call_impl=RUN), ""),
        "a slow forward": (linear(_slow_forward=named("os", "system")), "whose _slow_forward is another"),
        "a train of its own": (linear(train=named("os", "system")), "whose train is another"),
        "an attribute that is a call": (linear(extra=RUN), ""),
        "slots state": (made("torch.nn.modules.linear", "Linear", tuple_of(NONE, dict_of({"forward": RUN}))), "whose forward is another"),
        "a function to apply": (lambda_, "the network needs os.system at func"),
        "a builtin to apply": (module("fastai.layers", "Lambda", func=named("builtins", "eval")), "the network needs builtins.eval at func"),
        "a bound method to apply": (module("fastai.layers", "Lambda", func=call(named("builtins", "getattr"), relu, text("__init__"))), "the network needs torch.nn.modules.activation.ReLU"),
        "a module within itself": (loop, "within themselves"),
        "modules 200 deep": (deep, "within themselves, or too deep"),
        "parameters that are calls": (linear(_parameters=dict_of({"weight": RUN})), "no tensor where one belongs"),
        "parameters in a list": (linear(_parameters=list_of(RUN)), "no dict"),
        "a parameter named forward": (linear(_parameters=dict_of({"forward": parameter()})), "whose forward is another"),
        "a buffer with a dot": (linear(_buffers=dict_of({"a.b": tensor()})), "odd name"),
        "a module with a name of 10 kB": (module("torch.nn.modules.container", "Sequential", _modules=dict_of({"x" * 10_000: relu})), "odd name"),
    }  # fmt: skip
    return [(name, zipped(learner(body)), says) for name, (body, says) in cases.items()]


def _parts() -> list[Case]:
    """A good network, and something hostile in the rest of the Learner."""
    resize = {"size": tuple_of(number(8), number(8)), "method": text("squish"), "pad_mode": text("zeros"), "mode": number(2)}
    objects = call(named("numpy.core.multiarray", "_reconstruct"), named("numpy", "ndarray"), tuple_of(number(0)), blob(b"b"))
    objects += tuple_of(number(1), tuple_of(number(1)), call(named("numpy", "dtype"), text("O8")), FALSE, list_of(RUN)) + b"b"
    scalar = call(named("numpy.core.multiarray", "scalar"), call(named("numpy", "dtype"), text("O8")), blob(whole(RUN)))
    laugh = b"]p30\n" + b"".join(
        b"0](" + f"g{30 + level}\n".encode() * 10 + f"ep{31 + level}\n".encode() for level in range(30)
    )

    def item(path: str, state: dict[str, Code]) -> Code:
        home, _, name = path.rpartition(".")
        return learner(linear(), item=pipeline(made(home, name, dict_of(state))))

    cases = {
        "a getter of __main__": (learner(linear(), extra=call(named("__main__", "get_y"), text(SHELL))), ""),
        "a metric that runs": (learner(linear(), extra=RUN), ""),
        "__setstate__ of the Learner": (learner(linear()) + dict_of({"__setstate__": named("os", "system")}) + b"b", ""),
        "a cloudpickled function": (learner(linear(), extra=call(named("cloudpickle.cloudpickle", "_make_function"), call(call(named("cloudpickle.cloudpickle", "_builtin_type"), text("CodeType")), number(0)), dict_of({"x": RUN}), NONE, NONE, NONE)), ""),
        "an unknown item transform": (item("__main__.Mine", {}), "the item transform __main__.Mine"),
        "a hostile item transform": (learner(linear(), item=pipeline(RUN)), "the item transform os.system"),
        "a pipeline that is a call": (learner(linear(), item=RUN), "a pipeline that is none"),
        "a size that is a call": (item("fastai.vision.augment.Resize", {**resize, "size": RUN}), "the transform Resize: size"),
        "a method that is a call": (item("fastai.vision.augment.Resize", {**resize, "method": RUN}), "method"),
        "a mode that is a call": (item("fastai.vision.augment.Resize", {**resize, "mode": RUN}), "the transform Resize: interpolation"),
        "a size of 10^12": (item("fastai.vision.augment.Resize", {**resize, "size": tuple_of(number(10**6), number(10**6))}), "pixels"),
        "an attribute of ten to the thirtieth items": (item("fastai.vision.augment.Resize", {**resize, "more": laugh}), "more than any Learner has"),
        "an array of objects that run": (item("fastai.vision.augment.Resize", {**resize, "more": objects}), ""),
        "a scalar of a pickle": (item("fastai.vision.augment.Resize", {**resize, "more": scalar}), "are not there"),
        "a loss that runs": (learner(linear(), loss=RUN), "the loss os.system is none that is known"),
        "a loss with an activation": (learner(linear(), loss=made("fastai.losses", "CrossEntropyLossFlat", dict_of({"activation": named("os", "system")}))), "none that is known"),
        "no DataLoaders": (made("fastai.learner", "Learner", dict_of({"model": linear()})), "without DataLoaders"),
        "no state": (made("fastai.learner", "Learner"), "without DataLoaders"),
        "a state of text": (made("fastai.learner", "Learner", text(TOUCH)), "without DataLoaders"),
    }  # fmt: skip
    return [(name, zipped(body), says) for name, (body, says) in cases.items()]


_KINDS: dict[str, Callable[[], list[Case]]] = {
    "call": _calls,
    "container": _containers,
    "machine": _machine,
    "zip": _zips,
    "tensor": _tensors,
    "module": _modules,
    "part": _parts,
}


def mlmodel(folder: Path, content: bytes) -> Path:
    """A fastai MLmodel directory round the bytes of a model.fastai."""
    folder.mkdir()
    (folder / "model.fastai").write_bytes(content)
    parts = {"inputs": ("uint8", [-1, 8, 8, 3]), "outputs": ("float32", [-1, 2])}
    signature = {
        part: json.dumps([{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}])
        for part, (dtype, shape) in parts.items()
    }
    flavors = {"fastai": {"data": "model.fastai", "fastai_version": "2.7.19"}}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors, "signature": signature}))
    return folder


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for index, each in enumerate(files()):
        (target / f"{index:03d}").write_bytes(each.content)
        print(f"{index:03d}{os.sep}{each.name}: {each.says or 'read, inert'}")
