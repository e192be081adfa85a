"""Keep spatial dropout in what tf2onnx converts: calls inside ``exporting()``, and Keras's export on TensorFlow.

It patches tf2onnx for the time of a block; TensorFlow and tf2onnx are imported when it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import ml_dtypes
import onnx
import onnx_ir as ir

from onnx_spatialdrop import arguments as check
from onnx_spatialdrop import io
from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export.canonical import canonicalize
from onnx_spatialdrop.export.finish import require
from onnx_spatialdrop.export.foreign import refuse_foreign
from onnx_spatialdrop.export.keras import dialect
from onnx_spatialdrop.export.keras.call_recorder import CallRecorder, outermost, watching
from onnx_spatialdrop.export.keras.unmarked import unmarked
from onnx_spatialdrop.export.left_out import warn
from onnx_spatialdrop.export.markers import AXES, CALL, MARKER, VECTORIZED, replace_markers, require_all
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.passes.fuse import FusePass

__all__ = ["any_scope_name", "exporting", "mark", "trace_of", "writing_markers"]

_TAG: Final = "onnx_spatialdrop:"


@contextmanager
def exporting(*, elementwise: bool | None = None, seed: int = 0, rng: str | None = None) -> Iterator[None]:
    """Let ``tf2onnx.convert.from_keras``, ``from_function`` and ``from_graph_def`` write SpatialDropout nodes.

    Dropout layers of Keras 3 that are called while a graph is traced and the block is open become nodes, whether they
    are called with ``training`` or not, named and drawing as in export/keras.py. Dropout that a graph spells out in
    random ops (``tf.nn.dropout``, tf.keras with ``training=True``, a saved training graph) is recognised afterwards by
    passes/fuse.py. All nodes share one pair of switches, off by default. Give ``opset=18`` or newer: below, no function
    body draws the operator's bits.

    Args:
        elementwise: whether plain dropout becomes a node as well. By default it is left out, and a LeftOutWarning names
            Keras's layers; False leaves it out without a word.
        seed: base of the derived seeds, in [-2**63, 2**64); what draws as Keras does needs none.
        rng: how the nodes of Keras's layers draw: "keras_tf", "keras_tf_xla" or "philox". By default Keras's own way,
            with its generators as they are now: the second for a model that was compiled with ``jit_compile=True``,
            else the first. What is recognised in random ops always draws by "philox".

    Raises:
        SpatialDropError: there is no such ``rng``; TensorFlow or tf2onnx is not installed; ``large_model=True``, whose
            weights are outside of the model while it is converted; a layer that cannot be expressed.
    """
    dialect.check(rng)
    elementwise = None if elementwise is None else check.flag(elementwise, "elementwise")
    seed = check.seed(seed, "seed")
    require("tensorflow", "tf2onnx")
    require("tf2onnx", "tf2onnx")
    import tensorflow as tf

    watch = CallRecorder(mark, bool(elementwise), trace=trace_of, tracing=lambda: not tf.executing_eagerly())

    def finish(proto: onnx.ModelProto) -> onnx.ModelProto:
        model = ir.from_proto(proto)
        if watch.seen:
            calls = watch.calls(dialect.chooser(rng))
            require_all(model, calls)
            replace_markers(model, calls, seed)
            if elementwise is None:
                warn(unmarked(watch.seen))
        watch.seen.clear()  # the next conversion in this block traces anew
        FusePass(elementwise=bool(elementwise), training_mode=False, seed=seed).call(model)
        canonicalize(model)
        refuse_foreign(model)
        return ir.to_proto(model)

    with ExitStack() as stack:
        if _keras_runs_on_tensorflow():
            stack.enter_context(watching(watch))
        stack.enter_context(any_scope_name())
        stack.enter_context(writing_markers(finish))
        try:
            yield
        except SpatialDropError:
            if watch.error is not None:
                raise watch.error from None  # TensorFlow put a listing of the user's code around it
            raise


def _keras_runs_on_tensorflow() -> bool:
    try:
        import keras
    except ImportError:
        return False
    return bool(keras.__version__ >= "3" and keras.backend.backend() == "tensorflow")


def mark(x: Any, call: int, axes: tuple[int, ...]) -> Any:
    """Leave a marker in a TensorFlow graph: ``x``, unchanged, behind an op that says which call it was."""
    import tensorflow as tf

    # The one op that takes exactly the operator's types, changes nothing, carries a text and is not optimised away.
    return tf.raw_ops.CheckNumerics(tensor=x, message=f"{_TAG}{call}:{','.join(map(str, axes))}")


def trace_of(x: Any) -> Any:
    """Return the outermost graph that ``x`` is part of."""
    return outermost(getattr(x, "graph", None), "outer_graph")


@contextmanager
def writing_markers(finish: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None) -> Iterator[None]:
    """Let tf2onnx write what ``mark`` left as Marker nodes, equal graphs with equal names, and bfloat16 as bfloat16.

    Args:
        finish: applied to every model that is converted, before it is returned or written.
    """
    import tf2onnx.convert
    import tf2onnx.tf_utils
    import tf2onnx.utils
    from tensorflow.core.framework import types_pb2
    from tf2onnx.optimizer.merge_duplicated_nodes_optimizer import MergeDuplicatedNodesOptimizer as Merge
    from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

    convert, initialize = tf2onnx.convert._convert_common, TransposeOptimizer._initialize_handlers
    group, counter = Merge._group_nodes_by_type_inputs, tf2onnx.utils.INTERNAL_NAME

    def _convert_common(graph: Any, *arguments: Any, **options: Any) -> Any:
        output = options.pop("output_path", None)
        if options.get("large_model"):
            raise SpatialDropError("tf2onnx: large_model=True keeps weights outside of the model; convert without it")
        tf2onnx.utils.INTERNAL_NAME = 1  # it goes into names: equal models, equal bytes
        options["custom_op_handlers"] = {**(options.get("custom_op_handlers") or {}), "CheckNumerics": (_write, [])}
        domain = onnx.helper.make_opsetid(spec.DOMAIN, spec.VERSION)
        options["extra_opset"] = [*(options.get("extra_opset") or []), domain]
        proto, storage = convert(graph, *arguments, **options)
        if finish is not None:
            proto = finish(proto)
        if output is not None:
            io.save(proto, output)
        return proto, storage

    def handlers(self: Any) -> None:
        initialize(self)
        self._handler_map[MARKER] = lambda transpose, node: _through(self, transpose, node)

    def in_order(graph: Any) -> Any:  # which of some equal constants survives must not depend on addresses
        return {key: sorted(nodes, key=_base_name) for key, nodes in group(graph).items()}

    bfloat16 = onnx.TensorProto.BFLOAT16
    types = [  # tf2onnx calls bfloat16 float16, but for weights
        (tf2onnx.tf_utils.TF_TO_ONNX_DTYPE, types_pb2.DT_BFLOAT16, bfloat16),
        (tf2onnx.utils.ONNX_TO_NUMPY_DTYPE, bfloat16, ml_dtypes.bfloat16),
        (tf2onnx.utils.ONNX_DTYPE_NAMES, bfloat16, "bfloat16"),
    ]
    tf2onnx.convert._convert_common = _convert_common
    TransposeOptimizer._initialize_handlers = handlers
    Merge._group_nodes_by_type_inputs = staticmethod(in_order)
    try:
        with ExitStack() as stack:
            for table, key, value in types:
                stack.enter_context(_entry(table, key, value))
            yield
    finally:
        tf2onnx.convert._convert_common = convert
        TransposeOptimizer._initialize_handlers = initialize
        Merge._group_nodes_by_type_inputs = staticmethod(group)
        tf2onnx.utils.INTERNAL_NAME = counter


@contextmanager
def any_scope_name() -> Iterator[None]:
    """Let Keras's layers have names of any characters in graphs, inside the context; TensorFlow allows few in scopes.

    Only names of operators in the file follow a scope. Those of nodes are the layers' own.
    """
    import tensorflow as tf

    original = tf.name_scope

    def scope(name: str) -> Any:
        inner = bool(tf.compat.v1.get_default_graph().get_name_scope())
        valid = re.fullmatch(r"[A-Za-z0-9_.\\/>-]*" if inner else r"[A-Za-z0-9.][A-Za-z0-9_.\\/>-]*", name)
        return original(name if valid else f"layer_{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}")

    tf.name_scope = scope
    try:
        yield
    finally:
        tf.name_scope = original


@contextmanager
def _entry(table: dict[Any, Any], key: Any, value: Any) -> Iterator[None]:
    before = table.get(key)
    table[key] = value
    try:
        yield
    finally:
        del table[key]
        if before is not None:
            table[key] = before


def _base_name(node: Any) -> tuple[str, str]:
    return re.sub(r"__\d+$", "", node.name), node.name


def _write(context: Any, node: Any, _name: str, _arguments: Any) -> None:
    """tf2onnx's handler for CheckNumerics."""
    from tf2onnx.onnx_opset.misc import MoveToIdent

    message = node.get_attr_str("message")
    if not message.startswith(_TAG):
        MoveToIdent.version_1(context, node)  # what tf2onnx does with a CheckNumerics of the user's own
        return
    call, _, axes = message.removeprefix(_TAG).partition(":")
    for attribute in list(node.attr):
        del node.attr[attribute]
    node.type, node.domain = MARKER, spec.DOMAIN
    if "/pfor/" in node.name:
        node.set_attr(VECTORIZED, 1)
    node.set_attr(CALL, int(call))
    node.set_attr(AXES, [int(axis) for axis in axes.split(",") if axis])


def _through(optimizer: Any, transpose: Any, node: Any) -> bool:
    """Let tf2onnx move a transpose from before a marker to behind it, as it does for activations.

    Not where samples would no longer come first, or mask entries would be numbered in another order: one step a sample
    has to stay possible, and a seed has to mean the same mask in every layout.
    """
    order, shared = transpose.get_attr_value("perm"), node.get_attr_value(AXES) or []
    free = [order[axis] for axis in range(len(order)) if axis not in shared]
    if order[0] != 0 or free != sorted(free) or not optimizer._switch_transpose_and_node(node, transpose):
        return False
    node.set_attr(AXES, sorted(order[axis] for axis in shared))
    return True
