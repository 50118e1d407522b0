"""fastai's own hooks, by which a U-Net's decoder sees what its encoder gave: the one kind of hook that is rebuilt.

Only `hook_outputs` of fastai.callback.hook is known: a Hook whose function keeps the output of its module.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from tensign_converters.pickles.allowed import today
from tensign_converters.pickles.plain import state
from tensign_converters.pickles.records import Global, Record

_HOME = "fastai.callback.hook"
_METHOD = "cloudpickle.cloudpickle._builtin_type()"


def is_hook(value: Any) -> bool:
    """Whether a record is that of a Hook that keeps its module's output."""
    if not isinstance(value, Record) or today(value.path) != f"{_HOME}.Hook":
        return False
    kept = state(value).get("hook_func")
    return isinstance(kept, Global) and today(kept.path) == f"{_HOME}._hook_inner"


def hook_of(method: Any) -> Record | None:
    """The Hook whose bound `hook_fn` a record is, as pickle or as cloudpickle writes it."""
    if not isinstance(method, Record) or len(method.args) != 2:
        return None
    if method.path == "builtins.getattr" and method.args[1] == "hook_fn" and is_hook(method.args[0]):
        found: Record = method.args[0]
        return found
    function = method.args[0]
    bound = method.path == _METHOD and isinstance(function, Record) and function.path == "builtins.getattr"
    named = bound and len(function.args) == 2 and isinstance(function.args[0], Global) and function.args[1] == "hook_fn"
    if named and today(function.args[0].path) == f"{_HOME}.Hook" and is_hook(method.args[1]):
        found = method.args[1]
        return found
    return None


class Hooks:
    """Makes hooks of records, each record's once: the module that runs it and the one that reads it share it."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}

    def made(self, record: Record) -> Any:
        """fastai's own Hook, on no module yet."""
        if id(record) not in self._made:
            library = importlib.import_module(_HOME)
            hook = library.Hook.__new__(library.Hook)
            said = {name: state(record).get(name) is True for name in ("detach", "cpu", "gather")}
            hook.__dict__.update(said, hook_func=library._hook_inner, hook=None, stored=None, removed=True)
            self._made[id(record)] = hook
        return self._made[id(record)]

    def attach(self, record: Record, module: nn.Module) -> None:
        """Has the hook keep what `module` gives."""
        module.register_forward_hook(self.made(record).hook_fn)
