"""The constant matrices of an ONNX graph, followed to where they are multiplied with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pyarrowquant._core.quoting import quoted
from pyarrowquant.reading.location import Location
from pyarrowquant.reading.onnx_model import MATMUL_TYPES
from pyarrowquant.reading.tensors import FLOATS

PASSING_ON = ("Identity", "Transpose", "Cast")
_FLOAT_TYPES = frozenset(number for number, said in MATMUL_TYPES.items() if said[0] in FLOATS)

# Of all graphs together; large models have a tenth of that.
MOST_PARTS = 1_000_000


@dataclass(frozen=True)
class Use:
    """A node that multiplies with a weight."""

    graph: Any
    index: int


@dataclass(frozen=True)
class Weight:
    """A layer [N, K]: a tensor of the model, or its transpose.

    It is multiplied as the data type `computed`, which a Cast may have made of its own.
    """

    name: str
    tensor: Any
    transposed: bool
    computed: int
    uses: list[Use] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        first, second = self.tensor.dims
        return (second, first) if self.transposed else (first, second)

    @property
    def dtype(self) -> str:
        """Return the safetensors name of the type."""
        return MATMUL_TYPES[self.tensor.data_type][0]

    @property
    def computed_dtype(self) -> str:
        """Return the safetensors name of the type that it is multiplied as."""
        return MATMUL_TYPES[self.computed][0]


def find_weights(model: Any, location: Location) -> dict[str, Weight]:
    """Find the weights by name, in the order in which the graph uses them.

    They are constant matrices that are the second input of a MatMul or Gemm, themselves or behind
    Identity, Transpose and a Cast from one float type to another. What the caller may replace is no
    constant. Bodies of If, Loop and Scan count as far as they use constants of the graph around
    all.
    """
    return _Search(model, location).weights


@dataclass(frozen=True)
class _Matrix:
    """A value that is a tensor of the model, or its transpose, of its or another data type."""

    name: str
    tensor: Any
    transposed: bool
    computed: int


class _Scope:
    """Matrices by the names that a graph sees: its own, and those around that it does not hide."""

    def __init__(self, around: _Scope | None, own: dict[str, _Matrix | None]) -> None:
        self._around = around
        self._own = own

    def get(self, name: str) -> _Matrix | None:
        if name in self._own:
            return self._own[name]
        return None if self._around is None else self._around.get(name)

    def set(self, name: str, matrix: _Matrix | None) -> None:
        """Give the name another meaning; None for what is no matrix."""
        self._own[name] = matrix


class _Search:
    """Follows constant matrices through a graph, from where they are to where they are used."""

    def __init__(self, model: Any, location: Location) -> None:
        self._location = location
        self._parts = 0
        self.weights: dict[str, Weight] = {}
        # names of other graphs need not be unique in the model
        self._graph(model.graph, _Scope(None, self._initializers(model.graph)), outermost=True)

    def _graph(self, graph: Any, scope: _Scope, outermost: bool) -> None:
        self._count(len(graph.node))
        for index, node in enumerate(graph.node):
            attributes = node.attribute
            if attributes:
                self._count(len(attributes))
                for body in _bodies(attributes):
                    self._count(1)
                    hidden = (value.name for value in (*body.input, *body.initializer))
                    self._graph(body, _Scope(scope, dict.fromkeys(hidden)), outermost=False)
            for output in node.output:
                if scope.get(output):
                    if outermost:
                        raise self._twice(output)
                    scope.set(output, None)
            if node.domain not in ("", "ai.onnx"):
                continue
            if matrix := _passed_on(node, scope, outermost):
                scope.set(node.output[0], matrix)
            elif len(node.input) > 1 and (matrix := scope.get(node.input[1])):
                self._use(matrix, Use(graph, index))

    def _count(self, parts: int) -> None:
        self._parts += parts
        if self._parts > MOST_PARTS:
            raise ValueError(
                f"{self._location}: the model has {self._parts} nodes and attributes or more, the "
                f"most allowed is {MOST_PARTS}"
            )

    def _initializers(self, graph: Any) -> dict[str, _Matrix | None]:
        """Return the matrices that have weights, and that nobody may replace."""
        inputs = {value.name for value in graph.input}
        found: dict[str, _Matrix | None] = {}
        seen = set()
        for tensor in graph.initializer:
            if tensor.name in seen:
                raise self._twice(tensor.name)
            seen.add(tensor.name)
            if tensor.name not in inputs and _is_matrix(tensor):
                found[tensor.name] = _matrix(tensor.name, tensor)
        return found

    def _use(self, matrix: _Matrix, use: Use) -> None:
        transposed = _transposes_weight(use.graph.node[use.index])
        if transposed is None:
            return
        if not isinstance(matrix.name, str):
            raise ValueError(f"{self._location}: the name {quoted(matrix.name)} is not UTF-8")
        # MatMul has [K, N], a layer is [N, K].
        is_transposed = matrix.transposed == transposed
        weight = Weight(matrix.name, matrix.tensor, is_transposed, matrix.computed)
        known = self.weights.setdefault(matrix.name, weight)
        # A layer has one direction, and one type.
        if (known.transposed, known.computed) == (weight.transposed, weight.computed):
            known.uses.append(use)

    def _twice(self, name: object) -> ValueError:
        return ValueError(f"{self._location}: two tensors are named {quoted(name)}")


def _matrix(name: str, tensor: Any) -> _Matrix:
    return _Matrix(name, tensor, transposed=False, computed=tensor.data_type)


def _is_matrix(tensor: Any) -> bool:
    return (
        len(tensor.dims) == 2
        and 0 not in tensor.dims
        and tensor.data_type in MATMUL_TYPES
        and not tensor.HasField("segment")
    )


def _bodies(attributes: Any) -> Iterator[Any]:
    for attribute in attributes:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _passed_on(node: Any, scope: _Scope, outermost: bool) -> _Matrix | None:
    """Return the matrix that a Constant has, or that a node passes on."""
    if node.op_type not in ("Constant", *PASSING_ON) or len(node.output) != 1:
        return None
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Constant" and outermost and "value" in attributes:
        tensor = attributes["value"].t
        return _matrix(node.output[0], tensor) if _is_matrix(tensor) else None
    matrix = scope.get(node.input[0]) if len(node.input) == 1 else None
    if matrix and node.op_type == "Identity":
        return matrix
    if matrix and node.op_type == "Cast" and "to" in attributes:
        to = attributes["to"].i
        floats = matrix.computed in _FLOAT_TYPES and to in _FLOAT_TYPES
        return replace(matrix, computed=to) if floats else None
    flips = "perm" not in attributes or list(attributes["perm"].ints) == [1, 0]
    if matrix and node.op_type == "Transpose" and flips:
        return replace(matrix, transposed=not matrix.transposed)
    return None


def _transposes_weight(node: Any) -> bool | None:
    """Whether a plain product transposes its second input; None for any other node."""
    if node.op_type not in ("MatMul", "Gemm") or len(node.output) != 1:
        return None
    if node.op_type == "MatMul":
        return False
    said = {attribute.name: attribute for attribute in node.attribute}
    has_bias = len(node.input) > 2 and node.input[2] != ""
    for name in ("alpha", "beta") if has_bias else ("alpha",):
        if name in said and said[name].f != 1:
            return None
    if "transA" in said and said["transA"].i:
        return None
    return "transB" in said and bool(said["transB"].i)
