"""Give SpatialDropout nodes seeds of their own.

Equal nodes with equal seeds are merged by every optimiser that eliminates common subexpressions, and then drop the
same maps.
"""

from __future__ import annotations

import onnx_ir as ir

from onnx_spatialdrop import arguments, io
from onnx_spatialdrop.graph import scopes
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.operator import philox, spec

__all__ = ["SeedsPass", "assign_seeds", "derive_seeds"]


def derive_seeds(base: int, count: int, taken: frozenset[int] = frozenset()) -> list[int]:
    """Return ``count`` distinct seeds in [0, 2**63), the same for the same arguments.

    Seed i is taken from block i of the Philox stream of key ``base``; 0 and the seeds in ``taken`` are passed over.

    Args:
        base: base seed, in [-2**63, 2**64).
        count: how many.
        taken: seeds that are not to be given out again.

    Raises:
        SpecError: ``base`` does not fit in 64 bits.
    """
    base = spec.signed_seed(base, "base seed")
    found: list[int] = []
    seen, start = {0, *taken}, 0
    while len(found) < count:
        drawn = philox.words(base, [0], 4 * (count - len(found)), 4 * start)[0].reshape(-1, 4)
        start += len(drawn)
        for low, high in drawn[:, :2].tolist():
            seed = ((high & 0x7FFFFFFF) << 32) | low
            if seed not in seen:
                seen.add(seed)
                found.append(seed)
    return found


class SeedsPass(ir.passes.InPlacePass):
    """Write new seeds to SpatialDropout nodes, derived from one base seed.

    1. Nodes are numbered in the order of the file, main graph first; node i gets the i-th derived seed.
    2. With ``keep_ties``, nodes that share a seed now share one afterwards (masks tied on purpose); the group is
       numbered by its first node.
    3. A node whose seed is right already is not touched; where all are, the model is not modified.
    4. A node that draws as a framework does (``rng`` other than "philox") keeps its seed, which is the layer's: with
       another one it would no longer draw the layer's masks. It is not numbered, but counted in ``kept``. With
       ``frameworks`` it is a node like any other.
    """

    def __init__(self, base: int = 0, *, keep_ties: bool = False, frameworks: bool = False) -> None:
        super().__init__()
        self.base = arguments.seed(base, "base")
        self.keep_ties = arguments.flag(keep_ties, "keep_ties")
        self.frameworks = arguments.flag(frameworks, "frameworks")
        self.kept = 0

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        read = [(site.node, op.read(site.node)) for site in scopes.spatial_dropouts(model)]
        own = [(node, each.seed) for node, each in read if self.frameworks or each.rng == spec.RNGS[0]]
        self.kept = len(read) - len(own)  # case 4
        nodes, present = [node for node, _ in own], [seed for _, seed in own]
        groups = {key: i for i, key in enumerate(dict.fromkeys(present if self.keep_ties else range(len(nodes))))}
        seeds = derive_seeds(self.base, len(groups))
        modified = False
        for index, (node, old) in enumerate(zip(nodes, present, strict=True)):
            new = seeds[groups[old if self.keep_ties else index]]
            if new != old:
                node.attributes["seed"] = ir.AttrInt64("seed", new)
                modified = True
        return ir.passes.PassResult(model, modified=modified)


@io.same_kind
def assign_seeds(
    model: io.Source,
    output: io.PathLike | None = None,
    *,
    base: int = 0,
    keep_ties: bool = False,
    frameworks: bool = False,
) -> io.Result:
    """Return the model with a seed of its own on every SpatialDropout node, reproducible from ``base``.

    Nodes that draw as a framework does (``rng`` other than "philox") keep the seed of their layer.

    Args:
        model: a path, an onnx.ModelProto or an ir.Model; it is not changed.
        output: a file to write; then its path is returned.
        base: base seed, in [-2**63, 2**64).
        keep_ties: nodes that share a seed now share one afterwards.
        frameworks: nodes that draw as a framework does get new seeds, too, and no longer draw the layer's masks.

    Returns:
        The same kind of model as came in; from a path, an ir.Model.

    Raises:
        SpecError: ``base`` does not fit in 64 bits, or a node that the operator's definition does not allow.
        ModelFileError: a file that cannot be read or written.
    """
    return io.apply(model, output, SeedsPass(base, keep_ties=keep_ties, frameworks=frameworks))
