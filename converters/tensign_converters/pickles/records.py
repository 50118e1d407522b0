"""What a pickle turns into: names that are not imported, calls that are not made, dicts that are not hashed."""

from __future__ import annotations

from typing import Any


class Global:
    """The name of something importable, never imported: path "torch.nn.modules.conv.Conv2d"."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str) -> None:
        self.module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        self.name = name

    @property
    def path(self) -> str:
        """Module and qualified name, dotted."""
        return f"{self.module}.{self.name}"


class Record:
    """What a pickle would have made by calling something.

    callee: what would have been called; args, kwargs: with what; states: what BUILD would have set, in order; items: what
    would have been appended or added; entries: what would have been set by key.
    """

    __slots__ = ("args", "callee", "entries", "items", "kwargs", "states")

    def __init__(self, callee: Global | Record, args: tuple[Any, ...] = (), kwargs: Entries | None = None) -> None:
        self.callee = callee
        self.args = args
        self.kwargs = kwargs
        self.states: list[Any] = []
        self.items: list[Any] = []
        self.entries: list[tuple[Any, Any]] = []

    @property
    def path(self) -> str:
        """Of what would have been called: "torch._utils._rebuild_tensor_v2"; of what a call gave, with "()" behind it."""
        calls, callee = 0, self.callee
        while isinstance(callee, Record):
            calls, callee = calls + 1, callee.callee
        return callee.path + "()" * min(calls, 3)


class Entries:
    """A pickled dict, as its pairs in order: nothing is hashed, so that no choice of keys makes it slow."""

    __slots__ = ("pairs",)

    def __init__(self) -> None:
        self.pairs: list[tuple[Any, Any]] = []


def kind(value: Any) -> str:
    """What it is, for an error."""
    return value.path[:100] if isinstance(value, Global | Record) else type(value).__name__
