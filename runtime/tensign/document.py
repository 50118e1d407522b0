"""YAML text <-> plain data: no larger than it looks, and written back with all that nobody changed as it stood."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

_Loader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one takes a tenth of the time
_MAX_NODES = 100_000  # of the document, each alias counted as the whole that it stands for
_MAX_DEPTH = 50
_MAX_DIGITS = 100
_KEYS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "merge", "value")}


class NotYaml(ValueError):
    """What is wrong, and in which line, without the text: the file may be a link to what is nobody's business."""


def parse(text: str, *, once: bool = False) -> Any:
    """Plain data of one YAML document; once: a key that stands twice in a map is refused, else the last one counts.

    Raises NotYaml.
    """
    try:
        _check_depth(text)
        loader = _Loader(text)
        try:
            return _construct(loader, once)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        if error.problem_mark is None:
            raise NotYaml(error.problem) from None
        line = min(error.problem_mark.line, text.rstrip().count("\n")) + 1  # the C library counts one more at the end
        raise NotYaml(f"line {line}: {error.problem}") from None
    except Exception as error:  # ValueError, AttributeError and others, of a date of month 13 or a number without digits
        raise NotYaml(f"{type(error).__name__}: {str(error)[:200]}") from None


def dump(document: Mapping[str, Any]) -> str:
    """Block style, in the document's own order, every value as MLflow's safe_dump writes it."""
    return yaml.safe_dump(dict(document), sort_keys=False, default_flow_style=False)


def replaced(text: str, changes: Mapping[str, Any]) -> str:
    """The document with some top-level keys set: all other lines stay as they are where YAML allows, else in their order.

    A key that is new goes before the first that sorts after it in a document whose keys are sorted, else to the end.
    Raises NotYaml.
    """
    for key, value in changes.items():
        wanted = {**parse(text), key: value}
        changed = _spliced(text, key, value)
        text = changed if changed is not None and _says(changed, wanted) else dump(wanted)
    return text


def _check_depth(text: str) -> None:
    """Event by event, before anything recurses: the C library's composer has no limit but the end of the stack."""
    depth = 0
    event: Any
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise yaml.constructor.ConstructorError(problem="nested too deep", problem_mark=event.start_mark)


def _construct(loader: Any, once: bool) -> Any:
    root = loader.get_single_node()
    if root is None:
        return None
    if _size(root, {}, 0) > _MAX_NODES:  # before merge keys are resolved, which would copy what aliases stand for
        raise yaml.constructor.ConstructorError(problem=f"aliases make it more than {_MAX_NODES} values")
    if once:
        _check_keys(root, set())
    return loader.construct_document(root)


def _check_keys(node: yaml.Node, known: set[int]) -> None:
    """Raises ConstructorError for a key that stands twice in one map."""
    if id(node) in known or not isinstance(node, yaml.CollectionNode):
        return
    known.add(id(node))
    names = set()
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        if (key.tag, key.value) in names:
            raise yaml.constructor.ConstructorError(problem="a key that stands twice", problem_mark=key.start_mark)
        names.add((key.tag, key.value))
    for child in node.value:
        _check_keys(child[1] if isinstance(child, tuple) else child, known)


def _size(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Values below and with a node, were every alias written out. Raises ConstructorError for a loop and for odd text."""
    if depth > _MAX_DEPTH or known.get(id(node)) == 0:
        raise yaml.constructor.ConstructorError(problem="nested too deep, or within itself", problem_mark=node.start_mark)
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = 0
    size = 1
    if isinstance(node, yaml.ScalarNode):
        if any("\ud800" <= letter <= "\udfff" for letter in node.value):
            raise yaml.constructor.ConstructorError(problem="half a surrogate pair", problem_mark=node.start_mark)
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > _MAX_DIGITS:
            raise yaml.constructor.ConstructorError(problem="a number of many digits", problem_mark=node.start_mark)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag not in _KEYS:
                raise yaml.constructor.ConstructorError(problem="a key that is no text", problem_mark=key.start_mark)
            size += _size(key, known, depth + 1) + _size(value, known, depth + 1)
    else:
        size += sum(_size(child, known, depth + 1) for child in node.value)
    known[id(node)] = size
    return size


def _spliced(text: str, key: str, value: Any) -> str | None:
    """The text with the lines of one top-level key exchanged; None where the document is no block map of plain keys."""
    root = yaml.compose(text, Loader=_Loader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        return None
    starts = {name.value: name.start_mark.line for name, _ in root.value}
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    ends = [*list(starts.values())[1:], len(lines)]
    if key in starts:
        first = starts[key]
        last = ends[list(starts).index(key)]
        while last > first + 1 and (not lines[last - 1].strip() or lines[last - 1].startswith("#")):
            last -= 1  # what stands between two keys is not the key's own
    else:
        ordered = list(starts) == sorted(starts)
        first = last = next((line for name, line in starts.items() if ordered and name > key), len(lines))
    return "".join([*lines[:first], dump({key: value}), *lines[last:]])


def _says(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return bool(parse(text) == wanted)
    except NotYaml:
        return False
