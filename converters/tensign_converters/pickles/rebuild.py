"""Records of modules -> a network of the installed libraries' own classes, made without their constructors or `__setstate__`.

What runs afterwards is the libraries' own forward over checked data. No function, hook or class of the file gets in.
"""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from tensign.errors import UnsupportedModel, UntrustedModel
from tensign_converters.pickles.allowed import DEFAULTS, function, module_class, today
from tensign_converters.pickles.archive import read_archive
from tensign_converters.pickles.hooks import Hooks, hook_of, is_hook
from tensign_converters.pickles.plain import Opaque, Plain, described, state
from tensign_converters.pickles.records import Entries, Global, Record
from tensign_converters.pickles.tensors import is_tensor, tensor

_MAX_DEPTH = 60  # of modules within modules
_MAX_MODULES = 50_000
_PARTS = ("_parameters", "_buffers", "_modules")
_RUN_AT_INFERENCE = ("_forward_hooks", "_forward_pre_hooks")
_OURS = frozenset(vars(nn.Module()))  # hooks and such: always new, never the file's
_STATELESS = frozenset(
    {"_compiled_call_impl", "call_super_init", "dump_patches", "sfs"}
)  # sfs: what a U-Net removes at its end


def read_module(file: Path) -> nn.Module:
    """A whole module that torch.save or pickle wrote, as data: what mlflow.pytorch keeps as `data/model.pth`.

    Raises UntrustedModel for a class that is not rebuilt, with its place, and UnsupportedModel for what is broken.
    """
    return Rebuilder(Plain()).network(read_archive(file))


class Missing:
    """Stands where a module had something that was not rebuilt; whoever uses it hears what it was and where."""

    def __init__(self, path: str, where: str) -> None:
        self.__dict__.update(path=path, where=where)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise UntrustedModel(f"the network needs {self.path} at {self.where}, which only the file's own code can make")

    __call__ = __bool__ = __getitem__ = __iter__ = __len__ = __eq__ = __add__ = __mul__ = _refuse
    __radd__ = __rmul__ = __lt__ = __gt__ = __float__ = __int__ = __index__ = _refuse
    __hash__ = object.__hash__

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python and torch look for on anything
            raise AttributeError(name)
        self._refuse()


class Rebuilder:
    """Makes modules of records, each record's once, as it was shared in the original."""

    def __init__(self, plain: Plain) -> None:
        self._plain = plain
        self._made: dict[int, nn.Module] = {}
        self._tensors: dict[int, Tensor] = {}
        self._open: set[int] = set()
        self._hooks = Hooks()

    def network(self, record: Any) -> nn.Module:
        """The network, in evaluation mode.

        Raises UntrustedModel for a class that is not rebuilt, with its place in the network, and UnsupportedModel for state
        that no such class has.
        """
        return self._module(record, "", 0).eval().requires_grad_(False)

    def _module(self, record: Any, where: str, depth: int) -> nn.Module:
        place = f'"{where}"' if where else "the network itself"
        if not isinstance(record, Record):
            raise UnsupportedModel(f"{place}: no module")
        if id(record) in self._made:
            return self._made[id(record)]
        if depth > _MAX_DEPTH or id(record) in self._open or len(self._made) > _MAX_MODULES:
            raise UnsupportedModel(f"{place}: modules nested within themselves, or too deep, or too many")
        found = module_class(record.path) if not record.args and not isinstance(record.callee, Record) else None
        if found is None and record.path.startswith("__main__."):
            raise UnsupportedModel(
                f"{place} is of class {record.path[:200]}, and the script or notebook that it is of is not in the file:"
                " log the network as pt2 (torch.export) or ONNX, or its state dict, and declare the `architecture`"
            )
        if found is None:
            raise UntrustedModel(f"{place} is of class {described(record)[:200]}, which is not one that is rebuilt from data")
        self._open.add(id(record))
        module = found.__new__(found)
        nn.Module.__init__(module)  # torch's own empty state; the class's constructor never runs
        try:
            self._fill(module, state(record), where, depth)
        finally:
            self._open.discard(id(record))
        self._made[id(record)] = module
        return module

    def _fill(self, module: nn.Module, said: dict[str, Any], where: str, depth: int) -> None:
        for name in _RUN_AT_INFERENCE:
            for _, hook in self._pairs(said.get(name)):
                if name == "_forward_hooks" and (record := hook_of(hook)) is not None:
                    self._hooks.attach(record, module)
                    continue
                raise UntrustedModel(
                    f'"{where}" has {name.strip("_").replace("_", " ")}, functions that only the file itself can say'
                )
        for name, value in self._pairs(said.get("_modules")):
            inner = self._module(value, _joined(where, name), depth + 1) if value is not None else None
            module._modules[_checked(module, name)] = inner
        for name, value in self._pairs(said.get("_parameters")):
            module._parameters[_checked(module, name)] = self._parameter(value, where)
        for name, value in self._pairs(said.get("_buffers")):
            module._buffers[_checked(module, name)] = self._tensor(value, where)
        if isinstance(said.get("training"), bool):
            module.training = said["training"]
        for name, value in said.items():
            if name not in _OURS and not name.startswith("__") and name not in _STATELESS:
                module.__dict__[_checked(module, name)] = self._value(value, _joined(where, name), depth)
        _complete(module)

    def _value(self, value: Any, where: str, depth: int) -> Any:
        """An attribute: plain data, tensors, modules, known functions, and lists of these; Missing for anything else."""
        if isinstance(value, list | tuple) and depth < _MAX_DEPTH:
            return type(value)(self._value(item, where, depth + 1) for item in value)
        if is_tensor(value):
            return self._tensor(value, where)
        if isinstance(value, Global):
            return function(today(value.path)) or _dtype(value.path) or Missing(today(value.path), where)
        if is_hook(value):
            return self._hooks.made(value)
        if isinstance(value, Record):
            if not isinstance(value.callee, Record) and module_class(value.path) is not None:
                return self._module(value, where, depth + 1)
            if value.path == "functools.partial":
                return self._partial(value, where)
            if value.path == "torch.Size" and value.args:
                return torch.Size(n for n in self._plain.of(value.args[0]) if type(n) is int)
            if value.path in ("builtins.set", "builtins.frozenset"):
                return {item for item in self._plain.of(value) if isinstance(item, str | int | float)}
        made = self._plain.of(value)
        return Missing(made.path, where) if isinstance(made, Opaque) else made

    def _partial(self, record: Record, where: str) -> Any:
        said = record.states[-1] if record.states else None
        if isinstance(said, tuple) and len(said) == 4 and isinstance(said[0], Global):
            found, positional, named = function(today(said[0].path)), self._plain.of(said[1]), self._plain.of(said[2])
            if found and isinstance(positional, tuple) and isinstance(named, dict):
                return partial(found, *positional, **named)
        return Missing(described(record), where)

    def _tensor(self, value: Any, where: str) -> Tensor | None:
        if value is None:
            return None
        if not is_tensor(value):
            raise UnsupportedModel(f'"{where}": no tensor where one belongs')
        if id(value) not in self._tensors:
            self._tensors[id(value)] = tensor(value)
        return self._tensors[id(value)]

    def _parameter(self, value: Any, where: str) -> nn.Parameter | None:
        made = self._tensor(value, where)
        if made is not None and not isinstance(made, nn.Parameter):
            made = self._tensors[id(value)] = nn.Parameter(made, requires_grad=False)
        return made

    def _pairs(self, value: Any) -> list[tuple[Any, Any]]:
        if isinstance(value, Entries):
            return value.pairs
        if isinstance(value, Record) and today(value.path) == "collections.OrderedDict":
            given = value.args[0] if value.args else []
            pairs = [(pair[0], pair[1]) for pair in given if isinstance(pair, list | tuple) and len(pair) == 2]
            return [*pairs, *value.entries]
        if value is None:
            return []
        raise UnsupportedModel("a module whose parts are no dict")


def _checked(module: nn.Module, name: Any) -> str:
    """A name that may be set on a module: none that its class gives a meaning to, other than a plain value."""
    kind = type(module)
    if not isinstance(name, str) or not name or "." in name or name.startswith("__") or len(name) > 200:
        raise UnsupportedModel(f"a {kind.__name__} with an attribute of an odd name")
    given = inspect.getattr_static(kind, name, None)
    if callable(given) or hasattr(type(given), "__get__") or hasattr(type(given), "__set__"):
        raise UnsupportedModel(f"a {kind.__name__} whose {name} is another one than its class's")
    return name


def _complete(module: nn.Module) -> None:
    """Adds what the installed class reads and an older one did not have; see DEFAULTS."""
    for kind, defaults in DEFAULTS.items():
        if isinstance(module, kind):
            for name, value in defaults.items():
                if name not in module.__dict__ and name not in module._parameters:
                    module.__dict__[name] = value
    if isinstance(module, nn.modules.conv._ConvNd) and "_reversed_padding_repeated_twice" not in module.__dict__:  # 1.5
        padding = module.__dict__.get("padding", ())
        if isinstance(padding, tuple) and all(type(each) is int for each in padding):
            module.__dict__["_reversed_padding_repeated_twice"] = [each for each in reversed(padding) for _ in range(2)]


def _dtype(path: str) -> torch.dtype | None:
    names = {f"torch.{name}": getattr(torch, name) for name in ("float16", "float32", "float64", "bfloat16", "int64", "bool")}
    return names.get(path)


def _joined(where: str, name: Any) -> str:
    return f"{where}.{str(name)[:60]}" if where else str(name)[:60]
