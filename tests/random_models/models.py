"""Random valid models with dropout in them, and the same without."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from onnx import helper
from random_models import lookalikes, spellings
from random_models.layers import layer
from random_models.writer import BATCH, Setting, Tensor, Writer

OPSETS = range(7, 26)
#: The newest opset that files of an IR version were written with is not asked for: any pair is valid.
IR_VERSIONS = range(3, 14)
DTYPES = (np.float32, np.float32, np.float32, np.float16, np.float64)
_PRODUCERS = ("", "pytorch", "tf2onnx", "keras", "somebody")


@dataclass
class Pair:
    """A random model.

    Attributes:
        model: with dropout.
        plain: the same without, of the outputs that dropout reaches.
        feeds: an input.
        wanted: the ratio and the axes of every dropout.
        kept: the nodes that look like dropout and are none; by their first output.
        lies: the file contradicts itself in its value_info.
    """

    model: onnx.ModelProto
    plain: onnx.ModelProto
    feeds: dict[str, np.ndarray]
    wanted: list[tuple[float, tuple[int, ...]]]
    kept: dict[str, onnx.NodeProto]
    lies: bool


def random_pair(seed: int, **fixed: Any) -> Pair:
    """Return the random model number ``seed``."""
    made = [_Model(seed, dropout, fixed) for dropout in (True, False)]
    model, plain = (each.proto for each in made)
    return Pair(model, plain, made[0].feeds(), made[0].setting.wanted, made[0].kept, made[0].lies)


class _Model:
    def __init__(self, seed: int, dropout: bool, fixed: dict[str, Any]) -> None:
        rng = random.Random(seed)
        opset = fixed.get("opset") or rng.choice(OPSETS)
        ir_version = fixed.get("ir_version") or rng.choice(IR_VERSIONS)
        dtype = np.dtype(fixed.get("dtype") or rng.choice(DTYPES))
        self.setting = Setting(rng, opset, ir_version, dtype, dropout)
        self.rng, self.w = rng, Writer(self.setting)
        self.kept: dict[str, onnx.NodeProto] = {}
        self._extra: list[str] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        batch = rng.choice(["N", BATCH])
        rank = rng.choice([2, 3, 3, 4, 4, 4, 5])
        x = Tensor("x", (batch, *(rng.choice([3, 4]) for _ in range(rank - 1))))
        self._x = x
        y = x
        for _ in range(rng.randrange(2, 8)):
            y = self._block(y)
        self._y = layer(self.w, y)
        self.lies = False
        self.proto = self._finished()

    def feeds(self) -> dict[str, np.ndarray]:
        dims = [BATCH if dim == "N" else dim for dim in self._x.dims]
        x = np.random.default_rng(0).uniform(-2.0, 2.0, dims).astype(self.setting.dtype)
        return {"x": x} | ({"cond": np.array(True)} if any(value.name == "cond" for value in self._inputs) else {})

    def _block(self, x: Tensor) -> Tensor:
        w, rng = self.w, self.rng
        way = rng.choice(["layer"] * 4 + ["dropout"] * 5 + ["series", "series", "shared", "deferred", "residual"]
                         + ["lookalike", "if", "loop", "function"])  # fmt: skip
        if way == "dropout":
            return spellings.dropout(w, layer(w, x) if rng.random() < 0.5 else x)
        if way == "series":
            x = spellings.dropout(w, x)
            return spellings.dropout(w, layer(w, x) if rng.random() < 0.7 else x)
        if way == "shared":
            return spellings.shared(w, x)
        if way == "deferred" and x.rank > 2:
            return spellings.deferred(w, x)
        if way == "residual":
            y = spellings.dropout(w, layer(w, x, same_shape=True))
            return Tensor(w.node("Add", [x.name, y.name]), x.dims)
        if way == "lookalike":
            self._lookalike()
            return x
        if way == "if":
            return self._if(x)
        if way == "loop":
            return self._loop(x)
        if way == "function" and self.setting.ir_version >= 8 and self.setting.opset >= 9:
            return self._function(x)
        return layer(w, x)

    def _lookalike(self) -> None:
        """Write what is no dropout, of a copy of the input, to an output of its own."""
        mark = len(self.w.nodes)
        source = Tensor("x", self._x.dims)
        self._extra.append(self.rng.choice(lookalikes.ALL)(self.w, source))
        self.kept |= {node.output[0]: node for node in self.w.nodes[mark:]}

    def _inside(self, w: Writer, x: Tensor) -> Tensor:
        """Write a few nodes that keep the shape, dropout among them."""
        y = x
        for _ in range(self.rng.randrange(1, 4)):
            y = spellings.dropout(w, y) if self.rng.random() < 0.6 else layer(w, y, same_shape=True)
        return Tensor(w.node("Identity", [y.name]), y.dims)

    def _type(self, tensor: Tensor, name: str | None = None, shape: bool = True) -> onnx.ValueInfoProto:
        dims = [dim if shape else None for dim in tensor.dims]
        return helper.make_tensor_value_info(name or tensor.name, spellings.code(self.w), dims)

    def _if(self, x: Tensor) -> Tensor:
        self.setting.count += 1
        told, prefix = self.rng.random() < 0.5, f"s{self.setting.count}_"
        then, other = (Writer(self.setting, prefix, self.w) for _ in range(2))  # one's names are the other's
        y, z = self._inside(then, x), layer(other, x, same_shape=True)
        branches = {
            "then_branch": then.graph("then", [], [self._type(y, shape=told)]),
            "else_branch": other.graph("else", [], [self._type(z, shape=told)]),
        }
        if self.rng.random() < 0.5:
            condition = self.w.constant(True, np.bool_)
        else:
            condition = "cond"
            if not self._inputs:
                self._inputs.append(helper.make_tensor_value_info("cond", onnx.TensorProto.BOOL, []))
        return Tensor(self.w.node("If", [condition], **branches), x.dims)

    def _loop(self, x: Tensor) -> Tensor:
        self.setting.count += 1
        body = Writer(self.setting, f"l{self.setting.count}_", self.w)
        names = [body.name(role) for role in ("i", "on", "state")]
        y = self._inside(body, Tensor(names[2], x.dims))
        on = body.node("Identity", [names[1]])
        kinds = (onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
        inputs = [helper.make_tensor_value_info(name, kind, []) for name, kind in zip(names, kinds, strict=False)]
        inputs.append(self._type(Tensor(names[2], x.dims)))
        outputs = [helper.make_tensor_value_info(on, onnx.TensorProto.BOOL, []), self._type(y)]
        trips, go = self.w.constant(2, np.int64), self.w.constant(True, np.bool_)
        graph = body.graph("body", inputs, outputs)
        return Tensor(self.w.node("Loop", [trips, go, x.name], body=graph), x.dims)

    def _function(self, x: Tensor) -> Tensor:
        name = f"Block{len(self.setting.functions)}"
        body = Writer(self.setting, function=True)
        y = self._inside(body, Tensor("arg", x.dims))
        opset = [helper.make_opsetid("", self.setting.opset)]
        self.setting.functions.append(helper.make_function("own", name, ["arg"], [y.name], body.nodes, opset))
        for _ in range(self.rng.choice([1, 1, 2])):
            x = Tensor(self.w.node(name, [x.name], domain="own"), x.dims)
        return x

    def _finished(self) -> onnx.ModelProto:
        w, rng, setting = self.w, self.rng, self.setting
        outputs = [self._type(self._y, shape=rng.random() < 0.7)]
        extra = [self._type(self._x, name, shape=rng.random() < 0.5) for name in self._extra]
        inputs = [self._type(self._x), *self._inputs]
        for tensor in w.initializers:
            if setting.ir_version < 4 or (len(tensor.dims) > 1 and rng.random() < 0.2):
                inputs.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
        opsets = [helper.make_opsetid("", setting.opset)]
        opsets += [helper.make_opsetid("own", 1)] if setting.functions else []
        model = helper.make_model(
            w.graph("graph", inputs, outputs + extra),
            opset_imports=opsets,
            ir_version=setting.ir_version,
            functions=setting.functions,
            producer_name=rng.choice(_PRODUCERS),
        )
        model.doc_string = "a random model"
        helper.set_model_props(model, {"made": "at random"})
        return self._told(model)

    def _told(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Return the model with shapes of values in it: none, some, all, or wrong ones."""
        way = self.rng.choice(["none", "none", "all", "some", "wrong"])
        choices = [self.rng.random() for _ in range(200)]
        if way == "none":
            return model
        model = onnx.shape_inference.infer_shapes(model)
        infos = list(model.graph.value_info)
        if way == "some":
            del model.graph.value_info[:]
            model.graph.value_info.extend(info for info, chance in zip(infos, choices, strict=False) if chance < 0.5)
        if way == "wrong":
            self.lies = True
            for info, chance in zip(model.graph.value_info, choices, strict=False):
                dims = info.type.tensor_type.shape.dim
                if chance < 0.15 and dims and dims[-1].HasField("dim_value"):
                    dims[-1].dim_value += 1
        return model
