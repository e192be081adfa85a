"""Real networks through torch.onnx: in inference, with the same masks forced into torch, and in every form."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

from export.torch_forced import run_forced
from export.torch_marks import TORCH_WARNINGS
from export.torch_networks import NETWORKS, Network

import onnx_spatialdrop as sd
import onnx_spatialdrop.export.torch as sdt
from onnx_spatialdrop.passes.seeds import derive_seeds

pytestmark = TORCH_WARNINGS

# Float32 sums of some hundred terms of order one.
TOLERANCE = {"rtol": 1e-5, "atol": 2e-6}

EXPORTERS: dict[str, dict[str, Any]] = {
    "dynamo": {"dynamic_shapes": ({0: "batch"},)},
    "unoptimised": {"dynamic_shapes": ({0: "batch"},), "optimize": False},
    "torchscript": {"dynamo": False, "input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}},
}

networks = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
exporters = pytest.mark.parametrize("exporter", EXPORTERS)


@functools.cache
def exported(network: Network, exporter: str = "dynamo", **arguments: Any) -> ir.Model:
    """Export once for all tests that only look at the model."""
    model = sdt.export(network.module(), (network.input(),), **EXPORTERS[exporter], **arguments)
    assert isinstance(model, ir.Model)
    return model


def inference(network: Network, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return network.module().eval()(x).numpy()


@networks
@exporters
def test_every_layer_becomes_a_node_with_its_axes_and_seed(network: Network, exporter: str) -> None:
    model = exported(network, exporter, seed=3)
    onnx.checker.check_model(ir.to_proto(model))
    found = sd.find(model)
    assert len(found) == network.nodes
    assert {each.axes for each in found} == {network.axes}
    assert [each.seed for each in found] == derive_seeds(3, network.nodes)
    assert [value.name for value in model.graph.inputs] == ["x", "training_mode", "step"]
    assert {each.training_mode for each in found} == {"switch training_mode (false)"}


@networks
@exporters
def test_without_a_feed_the_file_is_torchs_inference_at_another_batch_size(network: Network, exporter: str) -> None:
    x = network.input(batch=3)
    got = sd.session(exported(network, exporter)).run(None, {"x": x.numpy()})[0]
    np.testing.assert_allclose(got, inference(network, x), **TOLERANCE)


@networks
@exporters
@pytest.mark.parametrize("step", [0, 5])
def test_in_training_mode_it_is_torchs_forward_with_the_same_masks(network: Network, exporter: str, step: int) -> None:
    x = network.input(batch=3)
    model = exported(network, exporter)
    feeds = {"x": x.numpy(), "training_mode": np.array(True), "step": np.array([step])}
    got = sd.session(model).run(None, feeds)[0]
    forced, masks = run_forced(network.module(), model, step, x)
    assert masks == network.nodes
    np.testing.assert_allclose(got, forced.numpy(), **TOLERANCE)
    assert np.abs(got - inference(network, x)).max() > 0.01


@networks
@exporters
def test_inference_is_torchs_own_export_byte_for_byte(network: Network, exporter: str, tmp_path: Path) -> None:
    x, arguments = network.input(), {"external_data": False, "verbose": False} | EXPORTERS[exporter]
    for name in ("ours", "again"):
        sdt.export(network.module(), (x,), tmp_path / name, dropout="inference", **EXPORTERS[exporter])
    torch.onnx.export(network.module().eval(), (x,), tmp_path / "own", **{"dynamo": True} | arguments)
    ours, again, own = ((tmp_path / name).read_bytes() for name in ("ours", "again", "own"))
    assert ours == again
    assert ours == own
    assert not sd.find(tmp_path / "ours")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["again", "ours", "own"]


@networks
@pytest.mark.parametrize("target", [None, "onnxruntime"])
def test_training_is_standard_operators_that_always_drop(network: Network, target: str | None) -> None:
    model = exported(network, dropout="training", target=target)
    assert {node.domain for node in model.graph.all_nodes()} == {""}
    assert "training_mode" not in [value.name for value in model.graph.inputs]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # The default target is a trainer's, whose Dropout ONNX Runtime's own optimiser would delete.
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, disabled_optimizers=["EliminateDropout"]
    )
    x = network.input(batch=3)
    drawn = [session.run(None, {"x": x.numpy()})[0] for _ in range(4)]
    assert len({each.tobytes() for each in drawn}) == 4
    assert min(np.abs(each - inference(network, x)).max() for each in drawn) > 0.01


@pytest.mark.parametrize("network", NETWORKS[2:], ids=lambda network: network.name)
@pytest.mark.parametrize("kernel", ["python", "body"])
def test_every_kernel_gives_the_same_bits_as_the_reference_evaluator(network: Network, kernel: Any) -> None:
    from onnx.reference import ReferenceEvaluator

    from onnx_spatialdrop.operator.evaluator import SpatialDropout

    model, x = exported(network), network.input()
    feeds = {"x": x.numpy(), "training_mode": np.array(True), "step": np.array([2])}
    got = sd.session(model, kernel).run(None, feeds)[0]
    # The evaluator computes convolutions its own way.
    expected = ReferenceEvaluator(ir.to_proto(model), new_ops=[SpatialDropout]).run(None, feeds)[0]
    np.testing.assert_allclose(got, expected, **TOLERANCE)


@pytest.mark.parametrize("dropout", ["op", "inference", "training"])
def test_a_second_export_gives_the_same_bytes(dropout: Any, tmp_path: Path) -> None:
    network = NETWORKS[2]
    module, files = network.module(), [tmp_path / "one.onnx", tmp_path / "two.onnx"]
    for file in files:
        assert sdt.export(module, (network.input(),), file, dropout=dropout) == file
    assert files[0].read_bytes() == files[1].read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["one.onnx", "two.onnx"]


def test_another_process_gives_the_same_bytes() -> None:
    code = (
        "import hashlib, onnx_ir as ir; from export.torch_networks import NETWORKS; "
        "import onnx_spatialdrop.export.torch as sdt; network = NETWORKS[3]; "
        "model = ir.to_proto(sdt.export(network.module(), (network.input(),))); "
        "print(hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest())"
    )
    tests = Path(__file__).parents[1]
    path = f"import sys; sys.path[:0] = {[str(tests), str(tests.parent)]!r}; "
    hashes = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", path + code],
            env={"PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    }
    assert len(hashes) == 1
    assert len(hashes.pop().strip()) == 64


def test_the_module_stays_as_it_was() -> None:
    network = NETWORKS[2]
    module = network.module()
    state = {key: value.clone() for key, value in module.state_dict().items()}
    module.eval()
    next(iter(module.children())).train()
    modes = [each.training for each in module.modules()]
    hooks = torch.nn.modules.module._global_forward_hooks.copy()
    sdt.export(module, (network.input(),))
    assert [each.training for each in module.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert torch.nn.modules.module._global_forward_hooks == hooks


def test_a_model_that_is_returned_holds_weights_of_its_own() -> None:
    network = NETWORKS[2]
    module, x = network.module(), network.input()
    model = sdt.export(module, (x,))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    got = sd.session(model).run(None, {"x": x.numpy()})[0]
    np.testing.assert_allclose(got, inference(network, x), **TOLERANCE)


def test_the_named_dimensions_of_dynamic_shapes_stay() -> None:
    network = NETWORKS[0]
    shapes = ({0: "batch", 2: torch.export.Dim("rows", min=4) * 4, 3: torch.export.Dim("columns", min=4) * 4},)
    model = sdt.export(network.module(), (network.input(),), dynamic_shapes=shapes)
    x = torch.randn(1, 3, 32, 20)
    assert str(model.graph.inputs[0].shape).startswith("[batch,3,")
    got = sd.session(model).run(None, {"x": x.numpy()})[0]
    np.testing.assert_allclose(got, inference(network, x), **TOLERANCE)


def test_a_step_a_sample_makes_results_independent_of_the_batch() -> None:
    network = NETWORKS[3]
    session, x = sd.session(exported(network)), network.input(batch=3).numpy()
    steps = np.array([4, 9, 4])
    whole = session.run(None, {"x": x, "training_mode": np.array(True), "step": steps})[0]
    for index in range(3):
        feeds = {"x": x[index : index + 1], "training_mode": np.array(True), "step": steps[index : index + 1]}
        np.testing.assert_allclose(session.run(None, feeds)[0][0], whole[index], **TOLERANCE)
