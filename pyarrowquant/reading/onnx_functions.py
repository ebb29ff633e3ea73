"""Functions of ONNX models, as exporters write them, put where they are called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.onnx_model import messages

_Key = tuple[str, str, str]


# What multiplies with a weight, or passes it on.
_OF_WEIGHTS = frozenset({"MatMul", "Gemm", "Identity", "Transpose", "Cast"})


def with_products_inline(onnx: Any, model: Any, location: Location, most: int) -> Any:
    """Return the model with the nodes of functions in place of their calls.

    These are functions that may multiply with a weight, or pass it on. Others stay.

    Parameters
    ----------
    onnx : module
    model : onnx.ModelProto
    location : Location
        What errors name.
    most : int
        Nodes that there may be then.
    """
    functions = {_key(each.domain, each.name, each): each for each in model.functions}
    wanted: set[_Key] = set()
    sizes: dict[_Key, int] = {}
    for key in _callees_first(functions, location):
        nodes = list(_nodes(functions[key].node))
        called = {_callee(node) for node in nodes}
        if called & wanted or any(node.op_type in _OF_WEIGHTS for node in nodes):
            wanted.add(key)
            sizes[key] = _size(nodes, sizes)
    nodes = list(_nodes(model.graph.node))
    if wanted.isdisjoint(map(_callee, nodes)):
        return model
    if (size := _size(nodes, sizes)) > most:
        raise ValueError(
            f"{location}: with its functions where they are called, the model has {size} nodes, "
            f"the most allowed is {most}"
        )
    import onnx.inliner

    try:
        return onnx.inliner.inline_selected_functions(
            model, [(domain, name) for domain, name, _ in wanted]
        )
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{location}: its functions cannot be put where they are called: "
            f"{' '.join(str(error).split())}"
        ) from error


def _callees_first(functions: dict[_Key, Any], location: Location) -> Iterable[_Key]:
    """Give functions after those that they call; depth is of the file, so without recursion."""
    done: set[_Key] = set()
    open_: set[_Key] = set()
    stack = list(functions)
    while stack:
        key = stack[-1]
        if key in done:
            stack.pop()
            continue
        calls = map(_callee, _nodes(functions[key].node))
        left = [each for each in calls if each in functions and each not in done]
        if not left:
            open_.discard(key)
            done.add(stack.pop())
            yield key
        elif key in open_:
            raise ValueError(f"{location}: the function {quoted(key[1])} calls itself")
        else:
            open_.add(key)
            stack += left


def _size(nodes: Iterable[Any], sizes: dict[_Key, int]) -> int:
    return sum(sizes.get(_callee(node), 0) + 1 for node in nodes)


def _nodes(nodes: Any) -> Iterable[Any]:
    """All nodes, those of inner graphs included."""
    return (
        message
        for node in nodes
        for message in messages(node)
        if message.DESCRIPTOR.name == "NodeProto"
    )


def _callee(node: Any) -> _Key:
    return _key(node.domain, node.op_type, node)


def _key(domain: str, name: str, overloaded: Any) -> _Key:
    return domain, name, getattr(overloaded, "overload", "")
