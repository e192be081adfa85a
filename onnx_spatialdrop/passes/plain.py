"""to_inference on the bytes of a file, where its dropout is plainly SpatialDropout and Dropout nodes.

It does what InferencePass does, or nothing: wherever that would have to prove something, or to do more than take nodes
out, it gives up, and the caller goes the long way. Both files are the same to the byte once onnx_ir has read and
written them; this one keeps more of the order in which the input has its fields.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import chain, compress
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir

from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.operator import body, spec
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes import switches
from onnx_spatialdrop.passes.expand.group import ATTRIBUTES_KEY
from onnx_spatialdrop.passes.patterns.constants import UNARY
from onnx_spatialdrop.passes.patterns.frozen import SIZES
from onnx_spatialdrop.passes.patterns.sources import SOURCES
from onnx_spatialdrop.passes.patterns.stripped import MARKS
from onnx_spatialdrop.passes.plain_seeds import representatives
from onnx_spatialdrop.plainfile import Ints, NotPlainError, PlainFile, check_attributes, need

__all__ = ["plain_inference"]

_DROPOUT, _SPATIAL = b"Dropout", spec.OP_TYPE.encode()
_DEFAULT: Final = (b"", b"ai.onnx")
#: Ops that lift.py moves dropout through; where there is a Transpose, layouts.py and tidy.py have work, too.
_VIEWS: Final = frozenset({b"Squeeze", b"Unsqueeze"})
#: What a number may be worked out of by patterns/constants.py, one operand deep; and what it may come out of.
_THROUGH: Final = frozenset(name.encode() for name in UNARY) | {
    *(b"Expand", b"Reshape", b"Squeeze", b"Unsqueeze", b"Tile", b"Flatten", b"Slice", b"Cast"),
    *(b"CastLike", b"Add", b"Div", b"Pow", b"Max", b"Min"),
}
_NUMBERS: Final = frozenset({b"Constant", b"ConstantOfShape", b"Where", b"Mul", b"Sub"})


def plain_inference(content: bytes) -> tuple[bytes, int] | None:
    """Return the inference model of a file's content and how many dropouts went; None where that takes more.

    Args:
        content: the bytes of an .onnx file.
    """
    try:
        return _Inference(content).run()
    except NotPlainError:
        return None


class _Inference:
    def __init__(self, content: bytes) -> None:
        need(ATTRIBUTES_KEY.encode() not in content)
        need(not any(mark in content for mark in MARKS))  # the operator's own draws without their tags
        self._file = file = PlainFile(content)
        need(all(domain == spec.DOMAIN and name in body.OWN_FUNCTIONS for domain, name in file.functions()))
        need("" in file.opsets)
        need(not any(name.encode() in file.types for name in (SOURCES - {"Dropout"}) | {"Transpose"}))
        need(not any(name.startswith(b"StatelessRandom") for name in file.types))
        self._spatial, self._dropout = file.rows(_SPATIAL), file.rows(_DROPOUT)
        own = np.array([*(name == spec.DOMAIN.encode() for name in file.named_domains), False])[file.domains]
        plain = np.array([*(name in _DEFAULT for name in file.named_domains), True])[file.domains]
        need(bool(own[self._spatial].all() and plain[self._dropout].all()) and int(own.sum()) == len(self._spatial))
        self._no_frozen_masks()
        self._check_attributes()
        self._rows = np.sort(np.concatenate((self._spatial, self._dropout)))
        self._new: dict[int, int] = {}
        self._numbers: dict[int, Any] = {}

    def run(self) -> tuple[bytes, int]:
        """Take the dropout out."""
        file = self._file
        self._take_out()
        first = file.reads_from[self._spatial]
        need(bool((file.reads_from[self._spatial + 1] - first == 3).all()))
        feeding = np.unique(file.reads[np.concatenate((first + 1, first + 2))])
        need(file.empty not in feeding)
        ratios, drawn_from = set[int](), list[int]()
        for row in self._dropout.tolist():
            reads = file.reads_of(row)
            if self._drops(reads):
                need(bool(file.used[file.makes[file.makes_from[row]]]))  # the long way does not count what nobody reads
                ratios.update(reads[1:])
                drawn_from.append(reads[0])
        if drawn_from:
            self._check_sources(drawn_from)
        added = self._added_infos()
        if len(self._spatial) or ratios:
            # The long way makes switches for what it recognises, and takes the model's own if they have these names.
            names = (switches.TRAINING_MODE.encode(), switches.STEP.encode())
            need(not ratios or not any(file.name(number) in names for number in file.inputs))
            file.drop_domain(spec.DOMAIN)
        gone, dropped = self._unused(feeding.tolist(), ratios)
        kept = np.ones(len(file.infos.contents) + 1, bool)
        made = np.isin(file.makes_rows, gone)
        for names_gone in (file.makes[made], np.array([*self._new, *dropped], np.int64)):
            kept[file.infos.at(names_gone)] = False
        unknown = {*dropped, *file.makes[made].tolist()} if added else set[int]()
        more = (content for name, content in added.items() if name not in unknown)
        infos = chain(compress(file.infos.contents, kept[:-1].tolist()), more)
        return file.write(gone, self._new, infos, {file.name(number) for number in dropped}), len(self._rows)

    def _no_frozen_masks(self) -> None:
        """Give up where a constant that multiplies something might be a mask that an exporter has frozen."""
        file = self._file
        factors = np.zeros(len(file.op_types), bool)
        factors[file.rows(b"Mul", b"Where")] = True
        if not factors.any():
            return
        read = set(file.reads[factors[file.reads_rows]].tolist())
        for name in read & file.initializers.keys() - file.inputs.keys():
            tensor = file.initializers[name]
            if len(tensor.dims) > 1 and int(np.prod(tensor.dims, dtype=object)) in SIZES:
                need(len(np.unique(onnx.numpy_helper.to_array(tensor))) > 2)

    def _check_attributes(self) -> None:
        """Check all attributes; of SpatialDropout nodes those that differ in their seeds only, once."""
        fields = self._file.attributes
        spatial = np.zeros(len(self._file.op_types), bool)
        spatial[self._spatial] = True
        mine = spatial[fields.row]
        others = fields.where(~mine)
        contents = others.values()
        name_of = check_attributes(contents)
        repeated = np.flatnonzero(np.bincount(others.row, minlength=1)[others.row] > 1).tolist()
        named = {(row, name_of[contents[i]]) for i, row in zip(repeated, others.row[repeated].tolist(), strict=True)}
        need(len(named) == len(repeated))
        fields = fields.where(mine)
        for row, contents in representatives(fields):
            check_attributes(contents)
            self._check_node(row)
        without = np.setdiff1d(self._spatial, fields.row)
        if len(without):
            self._check_node(int(without[0]))

    def _check_node(self, row: int) -> None:
        proto = self._file.node(row)
        try:
            attributes = [ir.serde.deserialize_attribute(attribute) for attribute in proto.attribute]
            inputs = [ir.Value(name=name) for name in proto.input]
            op.read(ir.Node(spec.DOMAIN, spec.OP_TYPE, inputs, attributes, num_outputs=2))
        except (SpecError, ValueError, TypeError, KeyError, IndexError):
            raise NotPlainError from None

    def _drops(self, reads: list[int]) -> bool:
        """Return whether a Dropout node drops; give up where that, or its ratio, is not written in the file."""
        opset, empty = self._file.opsets[""], self._file.empty
        need(opset >= 7)
        if opset < 12 or len(reads) < 3 or reads[2] == empty or not self._number(reads[2]):
            return False
        need(reads[1] != empty and 0.0 < float(self._number(reads[1])) < 1.0)
        return True

    def _number(self, name: int) -> Any:
        if name not in self._numbers:
            self._numbers[name] = self._read_number(name)
        return self._numbers[name]

    def _read_number(self, name: int) -> Any:
        tensor = self._file.initializers.get(name)
        need(tensor is not None and name not in self._file.inputs)
        assert tensor is not None
        array = onnx.numpy_helper.to_array(tensor)
        need(array.size == 1 and array.dtype.kind in "fb")
        return array.item()

    def _check_sources(self, names: list[int]) -> None:
        """Give up where x is one number everywhere, or might be: then the node makes a mask for something else."""
        file, source = self._file, np.arange(len(self._file.maker))
        through = np.flatnonzero(np.array([name in _THROUGH for name in file.types])[file.op_types])
        begin = file.reads_from[through]
        through = through[file.reads_from[through + 1] > begin]
        made = np.flatnonzero(np.isin(file.makes_rows, through) & (file.makes != file.empty))
        source[file.makes[made]] = file.reads[file.reads_from[file.makes_rows[made]]]
        source[[*self._new]] = [*self._new.values()]
        while not np.array_equal(further := source[source], source):  # each round goes twice as far
            source = further
        origins = np.unique(source[names])
        makers = file.maker[origins]
        given = origins[makers < 0].tolist()
        need(all(name in file.inputs and name not in file.initializers for name in given))
        for kind in np.unique(file.op_types[makers[makers >= 0]]).tolist():
            need(file.types[kind] not in _NUMBERS | _THROUGH)

    def _take_out(self) -> None:
        """Let those who read a dropout's result read its x, of all dropouts at once."""
        file, rows = self._file, self._rows
        reads, makes = file.reads_from[rows], file.makes_from[rows]
        count = file.makes_from[rows + 1] - makes
        need(bool((file.reads_from[rows + 1] > reads).all() and (count > 0).all() and (count < 3).all()))
        x, y, others = file.reads[reads], file.makes[makes], file.makes[makes[count == 2] + 1]
        need(not ((x == file.empty) | (y == file.empty) | file.returned[y]).any() and not file.used[others].any())
        for result, source in zip(y.tolist(), x.tolist(), strict=True):  # in the order of the file
            self._new[result] = self._new.get(source, source)
        left = np.array([*set(self._new.values())], np.int64)
        makers = file.maker[left]
        need(not (np.isin(left, [*file.initializers]) | (makers < 0) & ~np.isin(left, [*file.inputs])).any())
        views = np.array([name in _VIEWS for name in file.types])
        need(not views[file.op_types[makers[makers >= 0]]].any())

    def _added_infos(self) -> dict[int, bytes]:
        """Return more value_info, so that what is read now has the type and shape that a dropout's result had."""
        infos, file = self._file.infos, self._file
        names = np.array([*self._new], np.int64), np.array([*self._new.values()], np.int64)
        y, x = (infos.at(each) for each in names)
        given = np.isin(names[1], [*file.inputs])
        for name in set(names[1][given].tolist()):
            need(_is_complete(file.inputs[name].SerializeToString()))
        for kind in set(infos.type_of(x[~given & (x >= 0)]).tolist()):
            need(kind >= 0 and _is_complete(infos.types[kind]))
        added: dict[int, int] = {}
        lacking = ~given & (x < 0) & (y >= 0)
        need(not infos.says_more(y[lacking]).any())
        kinds = infos.type_of(y[lacking]).tolist()
        for name, kind in zip(names[1][lacking].tolist(), kinds, strict=True):
            need(name not in added or _is_complete(infos.types[added[name]]))
            need(kind >= 0)
            added.setdefault(name, kind)
        proto, types = onnx.ValueInfoProto, [onnx.TypeProto.FromString(content) for content in infos.types]
        return {
            name: proto(name=file.name(name).decode(), type=types[kind]).SerializeToString(deterministic=True)
            for name, kind in added.items()
        }

    def _unused(self, feeding: list[int], ratios: Iterable[int]) -> tuple[Ints, set[int]]:
        """Return the nodes, and the names of inputs and initializers, that nothing needs any more."""
        file, gone, more = self._file, self._rows, list[int]()
        used, dropped = file.used_without(gone), set[int]()
        removed = set(gone.tolist()) if any(file.maker[name] >= 0 for name in feeding) else set[int]()
        for name in feeding:
            if used[name]:
                continue
            maker = int(file.maker[name])
            if maker < 0:
                dropped.add(name)
            elif maker not in removed:
                need(file.types[file.op_types[maker]] == b"Constant" and file.domains[maker] < 0)
                need(not file.reads_of(maker) and file.makes_from[maker + 1] - file.makes_from[maker] == 1)
                more.append(maker)
        return np.concatenate((gone, np.array(more, np.int64))), dropped | {name for name in ratios if not used[name]}


@lru_cache(maxsize=1024)
def _is_complete(type_: bytes) -> bool:
    """Return whether a type says elements and shape of a tensor, so that nothing can be added to it."""
    tensor = onnx.TypeProto.FromString(type_).tensor_type
    return bool(tensor.elem_type) and bool(tensor.HasField("shape"))
