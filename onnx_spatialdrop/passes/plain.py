"""to_inference on the bytes of a file, where its dropout is plainly SpatialDropout and Dropout nodes.

It does what InferencePass does, or nothing: wherever that would have to prove something, or to do more than take nodes
out, it gives up, and the caller goes the long way. Both files are the same to the byte once onnx_ir has read and
written them; this one keeps more of the order in which the input has its fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

import numpy as np
import onnx

from onnx_spatialdrop.analysis.sources import SOURCES
from onnx_spatialdrop.graph import controls
from onnx_spatialdrop.graph.build import ATTRIBUTES_KEY
from onnx_spatialdrop.graph.ops import OPERATORS, Fact
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.bodies import body
from onnx_spatialdrop.passes.fuse.frozen import SIZES
from onnx_spatialdrop.passes.fuse.untagged import MARKS
from onnx_spatialdrop.passes.plain_attributes import check_attributes
from onnx_spatialdrop.storage.plainfile import Ints, NotPlainError, PlainFile, chosen, need
from onnx_spatialdrop.storage.plainwrite import Edits, write

__all__ = ["plain_inference"]

_DROPOUT, _SPATIAL = b"Dropout", spec.OP_TYPE.encode()
_DEFAULT: Final = (b"", b"ai.onnx")
#: Ops that hoist.py moves dropout through; where there is a Transpose, transposes.py and tidy.py have work, too.
_VIEWS: Final = frozenset({b"Squeeze", b"Unsqueeze"})
#: What a number may be worked out of by patterns/constants.py, one operand deep; and what it may come out of.
_THROUGH: Final = frozenset(
    name.encode() for name, row in OPERATORS.items() if row.function is not None or Fact.VIEW in row.facts
) - {b"Where", b"Mul", b"Sub"} | {b"Cast", b"CastLike"}
_NUMBERS: Final = frozenset({b"Constant", b"ConstantOfShape", b"Where", b"Mul", b"Sub"})


def plain_inference(content: bytes) -> tuple[Iterator[bytes], int] | None:
    """Return the inference model of a file's content and how many dropouts went; None where that takes more.

    Args:
        content: the bytes of an .onnx file.

    Returns:
        The new content in pieces, and a number.
    """
    try:
        return _Inference(PlainFile(content)).run()
    except NotPlainError:
        return None


class _Inference:
    """Take the dropout of a file out.

    Attributes:
        _spatial: the SpatialDropout nodes.
        _dropout: the Dropout nodes.
        _rows: both, in the order of the file.
        _results: what they compute.
        _new: for each name the one to be read in its place.
    """

    def __init__(self, file: PlainFile) -> None:
        self._file = file
        self._spatial, self._dropout = file.rows(_SPATIAL), file.rows(_DROPOUT)
        _no_other_dropout(file, self._spatial, self._dropout)
        check_attributes(file, self._spatial)
        self._rows = np.sort(np.concatenate((self._spatial, self._dropout)))
        self._numbers: dict[int, Any] = {}

    def run(self) -> tuple[Iterator[bytes], int]:
        file = self._file
        self._take_out()
        first = file.reads_from[self._spatial]
        need(bool((file.reads_from[self._spatial + 1] - first == 3).all()))
        feeding = chosen(len(file.maker), file.reads[first + 1], file.reads[first + 2])
        need(not feeding[file.empty])
        ratios = self._recognised()
        added = self._added_infos()
        done = bool(len(self._spatial) or ratios)
        # The long way makes switches for what it recognises, and takes the model's own if they have these names.
        names = (controls.TRAINING_MODE.encode(), controls.STEP.encode())
        need(not ratios or not any(file.name(number) in names for number in file.inputs))
        gone, dropped = self._unused(np.flatnonzero(feeding).tolist(), ratios)
        lost = file.makes[chosen(len(file.nodes), gone)[file.makes_rows]]
        unneeded = np.concatenate((lost, self._results, np.array([*dropped], np.int64)))
        infos = file.infos.at(unneeded)
        unknown = {*dropped, *lost.tolist()} if added else set[int]()
        edits = Edits(
            gone=gone,
            renamed=self._new,
            infos=np.flatnonzero(chosen(len(file.infos), infos[infos >= 0])),
            added=[content for name, content in added.items() if name not in unknown],
            dropped={file.name(number) for number in dropped},
            domain=spec.DOMAIN if done else None,
        )
        return write(file, edits), len(self._rows)

    def _take_out(self) -> None:
        """Let those who read a dropout's result read its x, of all dropouts at once."""
        file, rows = self._file, self._rows
        reads, makes = file.reads_from[rows], file.makes_from[rows]
        count = file.makes_from[rows + 1] - makes
        need(bool((file.reads_from[rows + 1] > reads).all() and (count > 0).all() and (count < 3).all()))
        x, y, others = file.reads[reads], file.makes[makes], file.makes[makes[count == 2] + 1]
        need(not ((x == file.empty) | (y == file.empty) | file.returned[y]).any() and not file.used[others].any())
        new = np.arange(len(file.maker))
        new[y] = x
        self._results, self._new = y, _followed(new)
        left = self._new[y]
        makers, given = file.maker[left], chosen(len(new), [*file.inputs])[left]
        need(not (chosen(len(new), [*file.initializers])[left] | (makers < 0) & ~given).any())
        views = np.array([name in _VIEWS for name in file.types])
        need(not views[file.op_types[makers[makers >= 0]]].any())

    def _recognised(self) -> set[int]:
        """Return what Dropout nodes that drop read beside x; give up where it is not written in the file."""
        file, rows = self._file, self._dropout
        if not len(rows):
            return set()
        need(file.opsets[""] >= 7)
        begin, count = file.reads_from[rows], file.reads_from[rows + 1] - file.reads_from[rows]
        if file.opsets[""] < 12:
            return set()
        begin, rows, count = begin[count > 2], rows[count > 2], count[count > 2]
        modes = file.reads[begin + 2]
        on = np.zeros(len(file.maker), bool)
        for name in np.flatnonzero(chosen(len(on), modes)).tolist():
            on[name] = name != file.empty and bool(self._number(name))
        drops = on[modes]
        begin, rows = begin[drops], rows[drops]
        need(bool((count[drops] == 3).all()))
        ratios = np.flatnonzero(chosen(len(on), file.reads[begin + 1])).tolist()
        need(file.empty not in ratios and all(0.0 < float(self._number(name)) < 1.0 for name in ratios))
        need(bool(file.used[file.makes[file.makes_from[rows]]].all()))  # the long way does not count what nobody reads
        if len(rows):
            self._check_sources(file.reads[begin])
        return {*ratios, *modes[drops].tolist()}

    def _number(self, name: int) -> Any:
        tensor = self._file.initializers.get(name)
        need(tensor is not None and name not in self._file.inputs)
        assert tensor is not None
        array = onnx.numpy_helper.to_array(tensor)
        need(array.size == 1 and array.dtype.kind in "fb")
        return array.item()

    def _check_sources(self, names: Ints) -> None:
        """Give up where x is one number everywhere, or might be: then the node makes a mask for something else."""
        file, source = self._file, np.arange(len(self._file.maker))
        through = np.array([name in _THROUGH for name in file.types])[file.op_types]
        through &= file.reads_from[1:] > file.reads_from[:-1]
        made = np.flatnonzero(through[file.makes_rows] & (file.makes != file.empty))
        source[file.makes[made]] = file.reads[file.reads_from[file.makes_rows[made]]]
        source[self._results] = self._new[self._results]
        origins = np.flatnonzero(chosen(len(source), _followed(source)[names]))
        makers = file.maker[origins]
        given = origins[makers < 0].tolist()
        need(all(name in file.inputs and name not in file.initializers for name in given))
        for kind in np.flatnonzero(chosen(len(file.types), file.op_types[makers[makers >= 0]])).tolist():
            need(file.types[kind] not in _NUMBERS | _THROUGH)

    def _added_infos(self) -> dict[int, bytes]:
        """Return more value_info, so that what is read now has the type and shape that a dropout's result had."""
        infos, file, names = self._file.infos, self._file, self._new[self._results]
        y, x = infos.at(self._results), infos.at(names)
        given = chosen(len(file.maker), [*file.inputs])[names]
        for name in set(names[given].tolist()):
            need(_is_complete(file.inputs[name].SerializeToString()))
        for kind in set(infos.type_of(x[~given & (x >= 0)]).tolist()):
            need(kind >= 0 and _is_complete(infos.types[kind]))
        added: dict[int, int] = {}
        lacking = ~given & (x < 0) & (y >= 0)
        need(not infos.says_more(y[lacking]).any())
        kinds = infos.type_of(y[lacking]).tolist()
        for name, kind in zip(names[lacking].tolist(), kinds, strict=True):
            need(name not in added or _is_complete(infos.types[added[name]]))
            need(kind >= 0)
            added.setdefault(name, kind)
        proto, types = onnx.ValueInfoProto, [onnx.TypeProto.FromString(content) for content in infos.types]
        return {
            name: proto(name=file.name(name).decode(), type=types[kind]).SerializeToString(deterministic=True)
            for name, kind in added.items()
        }

    def _unused(self, feeding: list[int], ratios: set[int]) -> tuple[Ints, set[int]]:
        """Return the nodes, and the names of inputs and initializers, that nothing needs any more."""
        file, gone, more = self._file, self._rows, list[int]()
        used, removed, dropped = file.used_without(gone), chosen(len(file.nodes), gone), set[int]()
        for name in feeding:
            if used[name]:
                continue
            maker = int(file.maker[name])
            if maker < 0:
                dropped.add(name)
            elif not removed[maker]:
                need(file.types[file.op_types[maker]] == b"Constant" and file.domains[maker] < 0)
                need(not file.reads_of(maker) and file.makes_from[maker + 1] - file.makes_from[maker] == 1)
                more.append(maker)
        return np.concatenate((gone, np.array(more, np.int64))), dropped | {name for name in ratios if not used[name]}


def _no_other_dropout(file: PlainFile, spatial: Ints, dropout: Ints) -> None:
    """Give up where there may be dropout, or a part of one, that is neither of these nodes."""
    spans = file.spans
    functions = [(function.domain, function.name) for function in spans.rest.functions]
    need(all(domain == spec.DOMAIN and name in body.OWN_FUNCTIONS for domain, name in functions))
    need(not spans.holds(ATTRIBUTES_KEY.encode()))
    need(not any(spans.holds(mark) for mark in MARKS))  # the operator's own draws without their tags
    need("" in file.opsets)
    need(not any(name.encode() in file.types for name in (SOURCES - {"Dropout"}) | {"Transpose"}))
    need(not any(name.startswith(b"StatelessRandom") for name in file.types))
    own = np.array([*(name == spec.DOMAIN.encode() for name in file.named_domains), False])[file.domains]
    plain = np.array([*(name in _DEFAULT for name in file.named_domains), True])[file.domains]
    need(bool(own[spatial].all() and plain[dropout].all()) and int(own.sum()) == len(spatial))
    # A constant that multiplies something might be a mask that an exporter has frozen.
    factors = chosen(len(file.nodes), file.rows(b"Mul", b"Where"))
    read = set(file.reads[factors[file.reads_rows]].tolist()) if factors.any() else set[int]()
    for name in read & file.initializers.keys() - file.inputs.keys():
        tensor = file.initializers[name]
        if len(tensor.dims) > 1 and int(np.prod(tensor.dims, dtype=object)) in SIZES:
            need(len(np.unique(onnx.numpy_helper.to_array(tensor))) > 2)


def _followed(source: Ints) -> Ints:
    """Return where each name leads in the end."""
    while not np.array_equal(further := source[source], source):  # each round goes twice as far
        source = further
    return source


@lru_cache(maxsize=1024)
def _is_complete(type_: bytes) -> bool:
    """Return whether a type says elements and shape of a tensor, so that nothing can be added to it."""
    tensor = onnx.TypeProto.FromString(type_).tensor_type
    return bool(tensor.elem_type) and bool(tensor.HasField("shape"))
