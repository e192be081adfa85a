"""The native kernel inside real graphs: control flow, functions, in-place, concurrency, other libraries."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from native_models import assert_right, drop_node, make_model, make_session, numbers, run
from onnx import TensorProto, helper

from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.operator import spec
from onnx_spatialdrop.operator.bodies import body

CASE = {"axes": [1], "ratio": 0.5, "seed": 7}
LEVELS = [
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("outputs", ["", None, "mask_unused"])
def test_between_other_nodes_with_the_mask_unused(
    level: onnxruntime.GraphOptimizationLevel, outputs: str | None
) -> None:
    # "" is an output that is not there, None a node that lists Y alone, "mask_unused" one that nobody reads.
    x = numbers((4, 30), "float32")
    nodes = [
        helper.make_node("Neg", ["x"], ["a"]),
        drop_node("a", "b", outputs),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    y = run(make_session(make_model(nodes, shape=[4, 30]), graph_optimization_level=level), x)[0]
    assert_right(-x, -y, None, **CASE, step=[3])


@pytest.mark.parametrize("level", LEVELS)
def test_two_equal_nodes_draw_alike_and_neither_is_lost(level: onnxruntime.GraphOptimizationLevel) -> None:
    x = numbers((4, 30), "float32")
    nodes = [drop_node("x", "y", "", name="one"), drop_node("y", "z", "", name="two")]
    once, twice = run(make_session(make_model(nodes, outputs=("y", "z")), graph_optimization_level=level), x)
    assert_right(x, once, None, **CASE, step=[3])
    assert_right(once, twice, None, **CASE, step=[3])


@pytest.mark.parametrize(
    "shape", [None, [4, 30], ["N", 30], [None, 30], [None, None], ["N", None]], ids=lambda shape: str(shape)
)
def test_whatever_is_known_of_the_shape(shape: list[int | str | None] | None) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["a"]), drop_node("a", "b", "mask"), helper.make_node("Neg", ["b"], ["y"])]
    session = make_session(make_model(nodes, shape=shape, outputs=("y", "mask")))
    for batch in (4, 9):
        if shape == [4, 30] and batch != 4:
            continue
        x = numbers((batch, 30), "float32", batch)
        y, mask = run(session, x)
        assert_right(-x, -y, mask, **CASE, step=[3])


def test_the_shape_of_y_is_inferred() -> None:
    session = make_session(make_model([drop_node("x", "y")], shape=["N", 30]))
    assert session.get_outputs()[0].shape == ["N", 30]


def test_inside_if_branches() -> None:
    def branch(name: str, seed: int) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
        return helper.make_graph([drop_node("x", f"{name}_y", "", name=name, seed=seed)], name, [], [out])

    cond = helper.make_node("ReduceMax", ["step"], ["largest"], keepdims=0)
    zero = helper.make_node("Constant", [], ["zero"], value_int=5)
    greater = helper.make_node("Greater", ["largest", "zero"], ["big"])
    chosen = helper.make_node("If", ["big"], ["y"], then_branch=branch("then", 1), else_branch=branch("other", 2))
    session = make_session(make_model([cond, zero, greater, chosen]))
    x = numbers((4, 30), "float32")
    for step, seed in ((9, 1), (2, 2)):
        assert_right(x, run(session, x, True, step)[0], None, **(CASE | {"seed": seed}), step=[step])


def test_inside_a_loop_the_iteration_can_be_the_step() -> None:
    node = drop_node("x", "dropped")
    node.input[2] = "i"
    inputs = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    outputs = [
        helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
        helper.make_tensor_value_info("dropped", TensorProto.FLOAT, None),
    ]
    inner = helper.make_graph([helper.make_node("Identity", ["c"], ["c_out"]), node], "body", inputs, outputs)
    trips = helper.make_node("Constant", [], ["trips"], value_int=4)
    loop = helper.make_node("Loop", ["trips", ""], ["y"], body=inner)
    x = numbers((4, 30), "float32")
    stacked = run(make_session(make_model([trips, loop])), x)[0]
    assert stacked.shape == (4, 4, 30)
    for step in range(4):
        assert_right(x, stacked[step], None, **CASE, step=[step])


def nested(before: bool) -> onnx.ModelProto:
    """Return x -> Outer -> y, where Outer calls Inner, which drops, and negates before or after."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(spec.DOMAIN, 1), helper.make_opsetid("local", 1)]
    names = ["x", "training_mode", "step"]
    drops = [drop_node("x", "z"), helper.make_node("Neg", ["z"], ["y"])]
    inner = helper.make_function("local", "Inner", names, ["y"], drops, imports)
    source, result = ("a", "y") if before else ("x", "b")
    call = helper.make_node("Inner", [source, *names[1:]], [result], domain="local")
    negate = helper.make_node("Neg", ["x"], ["a"]) if before else helper.make_node("Neg", ["b"], ["y"])
    steps = [negate, call] if before else [call, negate]
    outer = helper.make_function("local", "Outer", names, ["y"], steps, imports)
    return make_model([helper.make_node("Outer", names, ["y"], domain="local")], functions=[inner, outer])


def test_inside_nested_functions() -> None:
    x = numbers((4, 30), "float32")
    assert_right(-x, -run(make_session(nested(before=True)), x)[0], None, **CASE, step=[3])


def test_onnx_runtime_loses_the_type_of_a_custom_op_two_functions_deep() -> None:
    # Not the kernel's doing; docs/native.md says to inline. This fails on the day that it is no longer true.
    with pytest.raises(Exception, match="Input 0 expected to have type"):
        make_session(nested(before=False))


def test_the_body_and_the_kernel_in_one_file_give_equal_bits() -> None:
    import onnx_ir as ir

    functions = [ir.to_proto(function) for function in body.functions(18)]
    node = drop_node("x", "y", "mask", axes=[2], ratio=0.3)
    model = make_model([node], outputs=("y", "mask"), functions=functions)
    silent = onnxruntime.SessionOptions()
    silent.log_severity_level = 4
    alone = onnxruntime.InferenceSession(model.SerializeToString(), silent, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((5, 6, 7)).astype(np.float32)
    for step in ([3], [0, 5, 2**40, 1, 1]):
        ours, theirs = run(make_session(model), x, True, step), run(alone, x, True, step)
        assert [a.tobytes() for a in ours] == [b.tobytes() for b in theirs]


PEAK = """
import re, sys, numpy as np
from pathlib import Path
from onnx import helper
from native_models import drop_node, make_model, make_session
shape = [4096, 4096] if sys.argv[1] == "known" else [None, None]
nodes = [helper.make_node("Neg", ["x"], ["a"]), drop_node("a", "b"), helper.make_node("ReduceMax", ["b"], ["y"])]
session = make_session(make_model(nodes, shape=shape), enable_cpu_mem_arena=False)
feeds = {"x": np.zeros((4096, 4096), np.float32), "training_mode": np.array(True), "step": np.array([1])}
Path("/proc/self/clear_refs").write_text("5")  # forgets the peak, of which a child inherits its parent's
session.run(None, feeds)
print(int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_y_takes_the_place_of_x_where_shapes_are_known() -> None:
    def peak(shape: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", PEAK, shape],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            env=environment(),
            cwd=Path(__file__).parents[1],  # in the root, the sources would hide the installed package and its library
        )
        return int(done.stdout)

    # Beside x itself: one tensor of 64 MiB in place, two otherwise.
    assert peak("unknown") - peak("known") > 40


def environment() -> dict[str, str]:
    # Not the whole sys.path: what other tests put there may be the root.
    return os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}


def test_in_place_gives_the_same_bits() -> None:
    for shape, axes in (((64, 50, 48, 49), [2, 3]), ((64, 48, 49, 50), [1, 2]), ((3, 20, 30), [1])):
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        nodes = [
            helper.make_node("Neg", ["x"], ["a"]),
            drop_node("a", "b", "", axes=axes),
            helper.make_node("Neg", ["b"], ["y"]),
        ]
        y = run(make_session(make_model(nodes, shape=list(shape)), threads=2), x)[0]
        assert_right(-x, -y, None, axes=axes, ratio=0.5, seed=7, step=[3])


def test_an_input_that_others_read_is_left_alone() -> None:
    x = numbers((4, 30), "float32")
    nodes = [helper.make_node("Neg", ["x"], ["a"]), drop_node("a", "b"), helper.make_node("Neg", ["a"], ["c"])]
    before = x.copy()
    b, c = run(make_session(make_model(nodes, shape=[4, 30], outputs=("b", "c"))), x)
    assert_right(-x, b, None, **CASE, step=[3])
    assert c.tobytes() == x.tobytes() == before.tobytes()


def test_concurrent_runs_of_one_session() -> None:
    session = make_session(make_model([drop_node("x", "y", "mask", axes=[])], outputs=("y", "mask")), threads=2)
    xs = [numbers((50, 60), "float32", seed) for seed in range(4)]
    failures: list[BaseException] = []
    fresh: list[bytes] = []

    def work(index: int) -> None:
        try:
            for step in range(40):
                y, mask = run(session, xs[index], True, step)
                assert_right(xs[index], y, mask, axes=[], ratio=0.5, seed=7, step=[step])
                fresh.append(run(session, xs[index], True, -1)[1].tobytes())
        except BaseException as error:  # noqa: BLE001 -- to be seen by the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(set(fresh)) == 160  # every fresh draw got a counter of its own


def test_registering_twice_is_harmless() -> None:
    options = onnxruntime.SessionOptions()
    native.register(options)
    native.register(options)
    model = make_model([drop_node("x", "y")]).SerializeToString()
    for _ in range(2):
        assert onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def test_onnxruntime_does_not_warn_of_our_switches(capfd: pytest.CaptureFixture[str]) -> None:
    model = make_model([drop_node("x", "y")])
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(False), "training_mode"))
    for severity, is_warned in ((None, False), (2, True), (3, False)):
        options = onnxruntime.SessionOptions()
        if severity is not None:
            options.log_severity_level = severity
        native.register(options)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        assert ("training_mode appears in graph inputs" in capfd.readouterr().err) == is_warned, severity


@pytest.mark.parametrize("first", ["native", "extensions"])
def test_beside_onnxruntime_extensions(first: str) -> None:
    extensions = pytest.importorskip("onnxruntime_extensions")
    options = onnxruntime.SessionOptions()
    if first == "native":
        native.register(options)
    options.register_custom_ops_library(extensions.get_library_path())
    native.register(options)
    nodes = [drop_node("x", "y"), helper.make_node("Inverse", ["y"], ["z"], domain="ai.onnx.contrib")]
    model = make_model(nodes, outputs=("y", "z"))
    model.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.eye(3, dtype=np.float32) + 1
    y, z = run(session, x, False)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_allclose(z @ x, np.eye(3), atol=1e-5)


def test_sessions_come_and_go() -> None:
    # ONNX Runtime unloads the library with the last session that uses it and loads it again with the next.
    x = numbers((4, 30), "float32")
    for _ in range(20):
        assert_right(x, run(make_session(make_model([drop_node("x", "y")])), x)[0], None, **CASE, step=[3])
