"""A fitted forest as plain arrays: how much would a block's output be wrong if a unit were reused?

PatchedServe asks a random forest before every block. scikit-learn fits ours (`predictors.forest_fit`), but a one-call
``predict`` of it costs milliseconds and its files are pickles, so what ships is a Parquet table of nodes, walked here
by numpy for all units and trees at once. Every block has trees of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from traces.errors import BadInput
from traces.files import read_table
from traces.marks import OutputKind
from traces.output import whole_file

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FEATURES = ("step", "age", "input_change", "skip_change")
"""Step and age as shares of the request's steps; the changes as decimal logarithms."""

SMALLEST_CHANGE = 1e-6
FOREST = OutputKind("cache-forest")
_COLUMNS = {
    "block": "int64",
    "tree": "int64",
    "left": "int64",
    "column": "int64",
    "threshold": "float64",
    "value": "float64",
}


def features(step: Ints, steps: Ints, age: Ints, input_change: Floats, skip_change: Floats) -> npt.NDArray[np.float32]:
    """What the trees see: [units, features]. They compare 32-bit numbers, as scikit-learn's do."""
    matrix = np.empty((len(step), len(FEATURES)), dtype=np.float32)
    matrix[:, 0] = step / steps
    matrix[:, 1] = age / steps
    matrix[:, 2] = np.log10(np.maximum(input_change, SMALLEST_CHANGE))
    matrix[:, 3] = np.log10(np.maximum(skip_change, SMALLEST_CHANGE))
    return matrix


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees over `FEATURES` that give the decimal logarithm of the output change.

    A node whose ``left`` is itself is a leaf; the right child stands behind the left one.

    Attributes:
        roots: first node of each tree, [blocks, trees].
        left: left child of each node.
        column: the feature it splits by.
        threshold: values up to this go left.
        value: mean logarithm of the output change, of use in leaves.
        depth: longest way from a root to a leaf.
        metadata: ``model`` and how it was fitted.
    """

    roots: Ints
    left: Ints
    column: Ints
    threshold: Floats
    value: Floats
    depth: int
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def blocks(self) -> int:
        """Blocks of the model it was fitted for."""
        return len(self.roots)

    def output_change(self, block: int, x: npt.NDArray[np.float32]) -> Floats:
        """The change to expect in a block's output, [units], for `features` ``x``, [units, features].

        Raises:
            BadInput: the model has more blocks than the forest was fitted for.
        """
        if block >= self.blocks:
            model = self.metadata.get("model", "another model")
            raise BadInput(f"the cache forest of {model} knows {self.blocks} blocks, asked for block {block}")
        flat, left, column, threshold = np.ascontiguousarray(x).reshape(-1), self.left, self.column, self._threshold
        trees = self.roots[block]
        row = np.repeat(np.arange(len(x)) * len(FEATURES), len(trees))
        node = np.tile(trees, len(x))
        for _ in range(self.depth):
            seen = flat.take(row + column.take(node))
            node = left.take(node) + (seen > threshold.take(node))
        return 10.0 ** self.value.take(node).reshape(len(x), len(trees)).mean(axis=1)

    @cached_property
    def _threshold(self) -> Floats:
        """Thresholds; leaves have one that nothing exceeds, so that a walk stays where it has ended."""
        return np.where(self.left == np.arange(len(self.left)), np.inf, self.threshold)

    @classmethod
    def load(cls, path: Path) -> Forest:
        """Read a forest.

        Raises:
            BadInput: no such file, or no forest.
        """
        path = Path(path)
        if not path.is_file():
            raise BadInput(f"{path}: no such cache forest; expected a Parquet file written by 'tilecast cache fit'")
        try:
            table = read_table(path)
            facts = FOREST.facts(table.schema.metadata)
            nodes = {name: table.column(name).to_numpy().astype(kind) for name, kind in _COLUMNS.items()}
            return cls.of_nodes(**nodes, metadata=facts)
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise BadInput(f"{path}: not a cache forest; 'tilecast cache fit' writes one") from error

    @classmethod
    def of_nodes(
        cls,
        block: Ints,
        tree: Ints,
        left: Ints,
        column: Ints,
        threshold: Floats,
        value: Floats,
        metadata: Mapping[str, str],
    ) -> Forest:
        """A forest of its table of nodes, in order of block, tree and depth; equally many trees a block.

        Raises:
            BadInput: the nodes are no trees.
        """
        index = np.arange(len(left))
        leaf = left == index
        inner = left[~leaf]
        begins = np.flatnonzero(np.diff(block, prepend=-1) | np.diff(tree, prepend=-1))
        blocks = int(block.max(initial=-1)) + 1
        if (
            not blocks
            or len(begins) % blocks
            or (left < index).any()
            or (inner + 1 >= len(left)).any()
            or (column < 0).any()
            or (column >= len(FEATURES)).any()
            or not (np.isfinite(value).all() and np.isfinite(threshold).all())
        ):
            raise BadInput("not a cache forest: its nodes are no trees")
        below = np.zeros(len(left), dtype=np.int64)
        for node in index[~leaf]:  # a child stands behind its parent
            below[left[node]] = below[left[node] + 1] = below[node] + 1
        roots = begins.reshape(blocks, -1)
        return cls(
            roots=roots,
            left=left,
            column=column,
            threshold=threshold,
            value=value,
            depth=int(below.max()),
            metadata=metadata,
        )

    def save(self, path: Path) -> None:
        """Write the forest as Parquet, whole or not at all."""
        block, tree = np.indices(self.roots.shape)
        nodes = np.diff(self.roots.reshape(-1), append=len(self.left))
        columns = (
            np.repeat(block.reshape(-1), nodes),
            np.repeat(tree.reshape(-1), nodes),
            self.left,
            self.column,
            self.threshold,
            self.value,
        )
        table = pa.table(dict(zip(_COLUMNS, columns, strict=True)))
        table = table.replace_schema_metadata({FOREST.key: json.dumps(dict(self.metadata), sort_keys=True)})
        with whole_file(path, FOREST) as temporary:
            pq.write_table(table, temporary, compression="zstd")
