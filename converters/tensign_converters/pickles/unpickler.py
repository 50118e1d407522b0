"""A pickle as data: a stack machine of our own, which imports nothing, calls nothing and makes inert records of everything.

What a pickle would call becomes a Record of the call; plain values become plain values; whatever is to become more than that
is decided later, by those who read the records. Opcodes are split by pickletools, which executes none.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from tensign.errors import UnsupportedModel
from tensign_converters.pickles.records import Entries, Global, Record, kind

MAX_OPCODES = 2_000_000  # a Learner has some ten thousand; at worst some 300 bytes of memory each
_MAX_NAME = 500

_SET = Global("builtins", "set")
_FROZENSET = Global("builtins", "frozenset")
_BYTEARRAY = Global("builtins", "bytearray")
_RECONSTRUCTOR, _NEWOBJ, _NEWOBJ_EX = "copyreg._reconstructor", "copyreg.__newobj__", "copyreg.__newobj_ex__"
_PLAIN = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
}  # fmt: skip
_CARRIED = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
}  # fmt: skip


def unpickle(stream: BinaryIO, persistent: Callable[[Any], Any] | None = None) -> Any:
    """Reads one pickle of `stream`, up to its STOP, and gives its root.

    persistent: makes a value of a persistent id; without it such an id is refused. Raises UnsupportedModel for what is no
    pickle, is cut short, or goes beyond MAX_OPCODES.
    """
    try:
        return _Machine(persistent).run(pickletools.genops(stream))
    except UnsupportedModel:
        raise
    except (IndexError, KeyError) as error:  # of an empty stack, or of a memo that was never written
        raise UnsupportedModel(f"a broken pickle: {type(error).__name__}") from None
    except (ValueError, OverflowError, EOFError, UnicodeError, MemoryError, RecursionError) as error:  # pickletools' own
        raise UnsupportedModel(f"a broken pickle: {type(error).__name__}: {str(error)[:100]!a}") from None


class _Machine:
    def __init__(self, persistent: Callable[[Any], Any] | None) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.persistent = persistent

    def run(self, opcodes: Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> Any:
        for number, (opcode, argument, position) in enumerate(opcodes):
            if number >= MAX_OPCODES:
                raise UnsupportedModel(f"a pickle of more than {MAX_OPCODES} opcodes")
            name = opcode.name
            if name in _CARRIED:
                self.stack.append(argument)
            elif name in _PLAIN:
                self.stack.append(_PLAIN[name])
            elif name == "STOP":
                return self.stack.pop()
            else:
                step = getattr(self, f"_{name.lower()}", None)
                if step is None:
                    raise UnsupportedModel(f"a broken pickle: opcode {name} at byte {position}, which no model needs")
                step(argument)
        raise UnsupportedModel("a broken pickle: it ends without STOP")

    def _proto(self, version: int) -> None:
        if version > 5:
            raise UnsupportedModel(f"a pickle of protocol {version}; 5 is the newest known")

    def _frame(self, _: int) -> None:
        pass  # a hint for buffering: opcodes are split without it

    def _mark(self, _: None) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        since, self.stack = self.stack, self.marks.pop()
        return since

    def _pop(self, _: None) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._since_mark()

    def _pop_mark(self, _: None) -> None:
        self._since_mark()

    def _dup(self, _: None) -> None:
        self.stack.append(self.stack[-1])

    # -- memo

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: None) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _binget = _long_binget = _get

    # -- containers

    def _empty_list(self, _: None) -> None:
        self.stack.append([])

    def _list(self, _: None) -> None:
        since = self._since_mark()
        self.stack.append(since)

    def _append(self, _: None) -> None:
        value = self.stack.pop()
        self._items().append(value)

    def _appends(self, _: None) -> None:
        values = self._since_mark()
        self._items().extend(values)

    _additems = _appends

    def _items(self) -> list[Any]:
        target = self.stack[-1]
        if isinstance(target, list | Record):
            return target if isinstance(target, list) else target.items
        raise UnsupportedModel(f"a broken pickle: it appends to {kind(target)}")

    def _empty_dict(self, _: None) -> None:
        self.stack.append(Entries())

    def _dict(self, _: None) -> None:
        values, made = self._since_mark(), Entries()
        made.pairs.extend(zip(values[::2], values[1::2], strict=True))
        self.stack.append(made)

    def _setitem(self, _: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._pairs().append((key, value))

    def _setitems(self, _: None) -> None:
        values = self._since_mark()
        self._pairs().extend(zip(values[::2], values[1::2], strict=True))

    def _pairs(self) -> list[tuple[Any, Any]]:
        target = self.stack[-1]
        if isinstance(target, Entries | Record):
            return target.pairs if isinstance(target, Entries) else target.entries
        raise UnsupportedModel(f"a broken pickle: it sets items of {kind(target)}")

    def _empty_tuple(self, _: None) -> None:
        self.stack.append(())

    def _tuple(self, _: None) -> None:
        since = self._since_mark()
        self.stack.append(tuple(since))

    def _tuple1(self, _: None) -> None:
        self.stack[-1:] = [(self.stack[-1],)]

    def _tuple2(self, _: None) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def _tuple3(self, _: None) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def _empty_set(self, _: None) -> None:
        self.stack.append(Record(_SET))

    def _frozenset(self, _: None) -> None:
        made = Record(_FROZENSET)
        made.items = self._since_mark()
        self.stack.append(made)

    def _bytearray8(self, content: bytearray) -> None:
        self.stack.append(Record(_BYTEARRAY, (bytes(content),)))

    # -- names, calls and states: recorded

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")  # as pickletools joins the two lines
        self._name(module, name)

    def _stack_global(self, _: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self._name(module, name)

    def _name(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str) and len(module) + len(name) <= _MAX_NAME):
            raise UnsupportedModel(f"a broken pickle: a name of {kind(module)} and {kind(name)}, or a very long one")
        self.stack.append(Global(module, name))

    def _reduce(self, _: None) -> None:
        args, callee = self.stack.pop(), self.stack.pop()
        path = callee.path if isinstance(callee, Global) else ""
        if path == _RECONSTRUCTOR and isinstance(args, tuple) and len(args) == 3:  # how protocols 0 and 1 make an object
            callee, args = args[0], ()
        elif path == _NEWOBJ and isinstance(args, tuple) and args:
            callee, args = args[0], args[1:]
        elif path == _NEWOBJ_EX and isinstance(args, tuple) and len(args) == 3:
            self._call(*args)
            return
        self._call(callee, args)

    def _newobj(self, _: None) -> None:
        args, callee = self.stack.pop(), self.stack.pop()
        self._call(callee, args)

    def _newobj_ex(self, _: None) -> None:
        kwargs, args, callee = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self._call(callee, args, kwargs)

    def _inst(self, argument: str) -> None:
        args = tuple(self._since_mark())
        self._global(argument)
        self._call(self.stack.pop(), args)

    def _obj(self, _: None) -> None:
        callee, *args = self._since_mark()
        self._call(callee, tuple(args))

    def _call(self, callee: Any, args: Any, kwargs: Any = None) -> None:
        if not isinstance(callee, Global | Record) or not isinstance(args, tuple) or not isinstance(kwargs, Entries | None):
            raise UnsupportedModel(f"a broken pickle: it calls {kind(callee)} with {kind(args)}")
        self.stack.append(Record(callee, args, kwargs))

    def _build(self, _: None) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Record):
            raise UnsupportedModel(f"a broken pickle: it sets the state of {kind(target)}")
        target.states.append(state)

    def _persid(self, identity: str) -> None:
        self._persistent(identity)

    def _binpersid(self, _: None) -> None:
        self._persistent(self.stack.pop())

    def _persistent(self, identity: Any) -> None:
        if self.persistent is None:
            raise UnsupportedModel("a broken pickle: a persistent id, and nothing that it could stand for")
        self.stack.append(self.persistent(identity))
