"""to_inference on the bytes of a file, where its dropout is plainly SpatialDropout and Dropout nodes.

It does what InferencePass does, or nothing: wherever that would have to prove something, or to do more than take nodes
out, it gives up, and the caller goes the long way. Both files are the same to the byte once onnx_ir has read and
written them; this one keeps more of the order in which the input has its fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir

from onnx_spatialdrop import wire
from onnx_spatialdrop.errors import SpecError
from onnx_spatialdrop.operator import body, spec
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes import switches
from onnx_spatialdrop.passes.expand.group import ATTRIBUTES_KEY
from onnx_spatialdrop.passes.patterns.constants import UNARY
from onnx_spatialdrop.passes.patterns.frozen import SIZES
from onnx_spatialdrop.passes.patterns.sources import SOURCES
from onnx_spatialdrop.passes.patterns.stripped import MARKS
from onnx_spatialdrop.plainfile import NotPlainError, PlainFile, check_attributes, need

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
_SEED: Final = re.compile(rb"\n\x04seed\x18[\x80-\xff]{0,9}[\x00-\x7f]\xa0\x01\x02")


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
        used = set(file.op_types)
        need(not any(name.encode() in used for name in (SOURCES - {"Dropout"}) | {"Transpose"}))
        need(not any(name.startswith(b"StatelessRandom") for name in used))
        self._spatial, self._dropout = (
            [row for row, name in enumerate(file.op_types) if name == wanted] if wanted in used else []
            for wanted in (_SPATIAL, _DROPOUT)
        )
        need(all(file.domains.get(row) == spec.DOMAIN.encode() for row in self._spatial))
        need(all(file.domains.get(row, b"") in _DEFAULT for row in self._dropout))
        need(sum(domain == spec.DOMAIN.encode() for domain in file.domains.values()) == len(self._spatial))
        self._no_frozen_masks()
        self._check_attributes(set(self._spatial))
        self._operands = {row: file.reads(row) for row in sorted([*self._spatial, *self._dropout])}
        self._new: dict[bytes, bytes] = {}
        self._drawn = set[bytes]()
        self._numbers: dict[bytes, Any] = {}

    def run(self) -> tuple[bytes, int]:
        """Take the dropout out."""
        file, spatial = self._file, set(self._spatial)
        feeding, ratios = dict[bytes, None](), dict[bytes, None]()
        for row in self._operands:
            reads = self._operands[row]
            if row in spatial:
                need(len(reads) == 3 and b"" not in reads)
                feeding.update(dict.fromkeys(reads[1:]))
            elif self._drops(reads):
                need(file.used.issuperset(file.makes(row)[:1]))  # the long way does not count what nobody reads
                ratios.update(dict.fromkeys(reads[1:]))
            self._take_out(row)
        infos = self._infos()
        if spatial or ratios:
            # The long way makes switches for what it recognises, and takes the model's own if they have these names.
            names = (switches.TRAINING_MODE.encode(), switches.STEP.encode())
            need(not ratios or not any(name in file.inputs for name in names))
            file.drop_domain(spec.DOMAIN)
        gone, dropped = self._unused(feeding, ratios)
        for name in [*self._new, *dropped, *(name for row in gone for name in file.makes(row))]:
            infos.pop(name, None)
        return file.write(gone, self._new, infos.values(), dropped), len(self._operands)

    def _no_frozen_masks(self) -> None:
        """Give up where a constant that multiplies something might be a mask that an exporter has frozen."""
        file = self._file
        factors = [row for row, name in enumerate(file.op_types) if name in (b"Mul", b"Where")]
        read = {name for row in factors for name in file.reads(row)}
        for name in read & file.initializers.keys() - file.inputs.keys():
            tensor = file.initializers[name]
            if len(tensor.dims) > 1 and int(np.prod(tensor.dims, dtype=object)) in SIZES:
                need(len(np.unique(onnx.numpy_helper.to_array(tensor))) > 2)

    def _check_attributes(self, spatial: set[int]) -> None:
        """Check all attributes; of SpatialDropout nodes those that differ in their seeds only, once."""
        own, seen = list[bytes](), set[bytes]()
        for row, contents in self._file.attributes().items():
            if row not in spatial:
                own += contents
                need(len({content[: content[1] + 2] for content in contents}) == len(contents))
                continue
            kept = [content for content in contents if _SEED.fullmatch(content) is None]
            key = b"".join(kept)
            if key not in seen or len(kept) != len(contents) - 1:
                check_attributes(contents)
                self._check_node(row)
                seen.add(key)
        check_attributes(own)

    def _check_node(self, row: int) -> None:
        proto = self._file.node(row)
        try:
            attributes = [ir.serde.deserialize_attribute(attribute) for attribute in proto.attribute]
            inputs = [ir.Value(name=name) for name in proto.input]
            op.read(ir.Node(spec.DOMAIN, spec.OP_TYPE, inputs, attributes, num_outputs=2))
        except (SpecError, ValueError, TypeError, KeyError, IndexError):
            raise NotPlainError from None

    def _drops(self, reads: list[bytes]) -> bool:
        """Return whether a Dropout node drops; give up where that, or its ratio, is not written in the file."""
        opset = self._file.opsets[""]
        need(opset >= 7 and bool(reads) and reads[0] != b"")
        if opset < 12 or len(reads) < 3 or reads[2] == b"" or not self._number(reads[2]):
            return False
        need(reads[1] != b"" and 0.0 < float(self._number(reads[1])) < 1.0)
        self._is_drawn_from(self._new.get(reads[0], reads[0]))
        return True

    def _number(self, name: bytes) -> Any:
        if name not in self._numbers:
            self._numbers[name] = self._read_number(name)
        return self._numbers[name]

    def _read_number(self, name: bytes) -> Any:
        tensor = self._file.initializers.get(name)
        need(tensor is not None and name not in self._file.inputs)
        assert tensor is not None
        array = onnx.numpy_helper.to_array(tensor)
        need(array.size == 1 and array.dtype.kind in "fb")
        return array.item()

    def _is_drawn_from(self, name: bytes) -> None:
        """Give up where x is one number everywhere, or might be: then the node makes a mask for something else."""
        file, path = self._file, list[bytes]()
        while name not in self._drawn:
            path.append(name)
            row = file.producers.get(name)
            if row is None:
                need(name in file.inputs and name not in file.initializers)
                break
            need(file.op_types[row] not in _NUMBERS)
            if file.op_types[row] not in _THROUGH:
                break
            reads = file.reads(row)
            need(bool(reads))
            name = self._new.get(reads[0], reads[0])
        self._drawn.update(path)

    def _take_out(self, row: int) -> None:
        file = self._file
        y, *others = file.makes(row) or [b""]
        need(y != b"" and y not in file.outputs and len(others) < 2 and file.used.isdisjoint(others))
        x = self._new.get(self._operands[row][0], self._operands[row][0])
        maker = file.producers.get(x)
        need(x not in file.initializers and (maker is None or file.op_types[maker] not in _VIEWS))
        self._new[y] = x

    def _infos(self) -> dict[bytes, bytes]:
        """Return the value_info, in which what is read now has the type and shape that a dropout's result had."""
        infos = self._file.infos()
        for y, x in self._new.items():
            if x in self._file.inputs:
                need(_is_complete(self._file.inputs[x].SerializeToString()))
            elif x not in infos and y in infos:
                info = onnx.ValueInfoProto.FromString(infos[y])
                need(not info.doc_string and not info.metadata_props)
                infos[x] = onnx.ValueInfoProto(name=x.decode(), type=info.type).SerializeToString(deterministic=True)
            elif x in infos:
                need(_is_complete(_type_of(infos[x], x)))
        return infos

    def _unused(self, feeding: Iterable[bytes], ratios: Iterable[bytes]) -> tuple[set[int], set[bytes]]:
        """Return the nodes, and the names of inputs and initializers, that nothing needs any more."""
        file, gone = self._file, set(self._operands)
        used, dropped = file.used_without(gone), set[bytes]()
        for name in feeding:
            if name in used:
                continue
            maker = file.producers.get(name)
            if maker is None:
                dropped.add(name)
            elif maker not in gone:
                need(file.op_types[maker] == b"Constant" and file.domains.get(maker, b"") == b"")
                need(not file.reads(maker) and len(file.makes(maker)) == 1)
                gone.add(maker)
        return gone, dropped | {name for name in ratios if name not in used}


def _type_of(info: bytes, name: bytes) -> bytes:
    """Return the type in a value_info of a name, where that is all there is in it."""
    head = b"\n" + wire.varint(len(name)) + name + b"\x12"
    if info.startswith(head):
        size = wire.varint(len(info) - len(head) - 1)
        if len(size) == 1 and info[len(head) : len(head) + 1] == size:
            return info[len(head) + 1 :]
    found: bytes = onnx.ValueInfoProto.FromString(info).type.SerializeToString(deterministic=True)
    return found


@lru_cache(maxsize=1024)
def _is_complete(type_: bytes) -> bool:
    """Return whether a type says elements and shape of a tensor, so that nothing can be added to it."""
    tensor = onnx.TypeProto.FromString(type_).tensor_type
    return bool(tensor.elem_type) and bool(tensor.HasField("shape"))
