"""torch's own masks through mask inputs, on whole networks; and every planted fault is found where it was planted."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

torch = pytest.importorskip("torch", reason='torch is not installed: pip install "onnx_spatialdrop[torch]"')

from export.torch_marks import TORCH_WARNINGS  # noqa: E402
from export.torch_networks import NETWORKS, Network  # noqa: E402

import onnx_spatialdrop as sd  # noqa: E402
import onnx_spatialdrop.export.torch as sdt  # noqa: E402
from onnx_spatialdrop.errors import VerifyError  # noqa: E402
from onnx_spatialdrop.graph.layers import CALL_KEY, LAYER_KEY  # noqa: E402
from onnx_spatialdrop.graph.scopes import spatial_dropouts  # noqa: E402
from onnx_spatialdrop.verify import FrameworkStep, Verification, verify  # noqa: E402
from onnx_spatialdrop.verify.torch import TorchRun, draw_masks  # noqa: E402

pytestmark = TORCH_WARNINGS

networks = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
#: For each network a layer in its middle, and one of the same shape and rate.
PAIRS = {
    "ENet": ("second.1.branch.8", "second.2.branch.9"),
    "ERFNet": ("encoder.4.dropout", "encoder.5.dropout"),
    "TCN": ("blocks.1.drop1", "blocks.2.drop1"),
    "3-D U-Net": ("left", "right"),
}


@functools.cache
def exported(network: Network) -> ir.Model:
    """Export once; the nodes draw their own masks."""
    model = sdt.export(network.module(), (network.input(),), dynamic_shapes=({0: "batch"},))
    assert isinstance(model, ir.Model)
    return model


def compared(network: Network, model: ir.Model, run: TorchRun | None = None, **arguments: Any) -> Verification:
    given = sd.expand(model, form="mask-inputs")
    return verify(run or network.module(), given, network.input(3).numpy(), **arguments)


def faulty(network: Network, change: Callable[[dict[str, ir.Node]], None]) -> ir.Model:
    """Return the export with something changed in its nodes, which are given by layer."""
    model = exported(network).clone()
    change({site.node.metadata_props[LAYER_KEY]: site.node for site in spatial_dropouts(model)})
    return model


@networks
@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
def test_all_masks_of_five_training_passes_are_torchs_own(network: Network, runtime: Any) -> None:
    result = compared(network, exported(network), runtime=runtime)
    assert result, str(result)
    assert len(result.layers) == network.nodes
    assert all(layer.steps == 5 and layer.equal == layer.entries > 0 for layer in result.layers)
    assert sum(layer.dropped for layer in result.layers) > 50
    assert all(output.difference < 1e-6 for output in result.outputs)


@networks
def test_a_wrong_axis(network: Network) -> None:
    layer = PAIRS[network.name][0]
    result = compared(network, faulty(network, lambda nodes: set_axes(nodes[layer])))
    assert (result.first.step, result.first.layer, result.first.what) == (0, layer, "shape")
    assert [divergence.layer for divergence in result.divergences] == [layer]
    assert result.notes == ("stopped in step 0: a mask cannot be fed",)


def set_axes(node: ir.Node) -> None:
    axes = list(node.attributes["axes"].as_ints())
    node.attributes["axes"] = ir.AttrInt64s("axes", [axes[0] - 1, *axes[1:]])


@networks
def test_a_wrong_scale(network: Network) -> None:
    layer = PAIRS[network.name][0]

    def change(nodes: Mapping[str, ir.Node]) -> None:
        old = nodes[layer].attributes["scale"].as_float()
        nodes[layer].attributes["scale"] = ir.AttrFloat32("scale", old * 1.001)

    result = compared(network, faulty(network, change))
    assert (result.first.step, result.first.layer, result.first.what) == (0, layer, "value")
    assert "kept values are multiplied by 1." in result.first.text
    assert {each.layer for each in result.divergences if each.what == "value"} == {layer}


@networks
def test_swapped_layers(network: Network) -> None:
    one, two = PAIRS[network.name]

    def change(nodes: Mapping[str, ir.Node]) -> None:
        a, b = nodes[one].metadata_props, nodes[two].metadata_props
        for key in (LAYER_KEY, CALL_KEY):
            a[key], b[key] = b[key], a[key]

    result = compared(network, faulty(network, change))
    assert (result.first.step, result.first.what) == (0, "input")
    assert result.first.layer in (one, two)  # the one that the file, which has them swapped, has first
    assert {each.layer for each in result.divergences if each.what == "value"} == set()


class OtherMasks(TorchRun):
    """Feeds the model other masks than the module's next pass draws."""

    def __init__(self, module: Any, seed: int, ahead: int, from_step: int = 0) -> None:
        super().__init__(module, 0)
        self.other, self.ahead, self.from_step = TorchRun(module, seed), ahead, from_step

    def begin(self, layers: Any) -> None:
        super().begin(layers)
        self.other.begin(layers)

    def run(self, inputs: Any, step: int) -> FrameworkStep:
        for _ in range(self.ahead):
            self.other.draw(list(inputs.values()))
        self.ahead = 0
        drawn, done = self.other.draw(list(inputs.values())), super().run(inputs, step)
        return replace(done, drawn=drawn) if step >= self.from_step else done


@networks
def test_a_wrong_seed(network: Network) -> None:
    result = compared(network, exported(network), OtherMasks(network.module(), seed=1, ahead=0, from_step=2))
    assert (result.first.step, result.first.what) == (2, "mask")
    assert result.first.layer == first_to_drop(network, result)
    assert "mask entries differ, the first at [" in result.first.text


def first_to_drop(network: Network, result: Verification) -> str:
    """Return the first layer whose masks differ in step 2; at a rate of 0.01 they may be all true with any seed."""
    masks = [draw_masks(network.module(), [network.input(3)], mask_model(network), seed=s, steps=3)[2] for s in (0, 1)]
    return next(layer.layer for layer in result.layers if differ(*(m[f"{layer.layer}.mask"] for m in masks)))


def differ(a: np.ndarray, b: np.ndarray) -> bool:
    return not np.array_equal(a, b)


@functools.cache
def mask_model(network: Network) -> ir.Model:
    return sd.expand(exported(network), form="mask-inputs")


@networks
def test_a_step_too_far_ahead(network: Network) -> None:
    result = compared(network, exported(network), OtherMasks(network.module(), seed=0, ahead=1))
    assert (result.first.step, result.first.what) == (0, "mask")
    (note,) = result.notes
    assert note.startswith("step 1, the framework's mask of ")
    assert note.endswith(" is the model's of step 0")


def test_export_with_mask_inputs_is_the_export_expanded() -> None:
    network = NETWORKS[2]
    model = sdt.export(network.module(), (network.input(),), dynamic_shapes=({0: "batch"},), mask_inputs=True)
    assert ir.to_proto(model) == ir.to_proto(mask_model(network))
    assert "blocks.0.drop2.mask" in [value.name for value in model.graph.inputs]
    assert verify(network.module(), model, network.input(2).numpy(), steps=1)
    always = sdt.export(
        network.module(), (network.input(3),), dropout="training", target="onnxruntime", mask_inputs=True
    )
    assert [value.name for value in always.graph.inputs][1:] == [v.name for v in model.graph.inputs][2:]
    assert verify(network.module(), always, network.input(3).numpy(), steps=2)
    with pytest.raises(sd.SpatialDropError, match="dropout is 'inference', which leaves no masks"):
        sdt.export(network.module(), (network.input(),), dropout="inference", mask_inputs=True)


def test_a_model_that_draws_by_itself_is_refused() -> None:
    network = NETWORKS[2]
    with pytest.raises(VerifyError, match=r"'blocks\.0\.drop1': the model draws its mask itself \(rng 'philox'\)"):
        verify(network.module(), exported(network), network.input(2).numpy())


def test_the_module_and_the_generator_stay_as_they_were() -> None:
    network = NETWORKS[0]
    module = network.module()
    next(module.children()).eval()
    modes = [each.training for each in module.modules()]
    weights = {key: value.clone() for key, value in module.state_dict().items()}
    x = network.input(3).numpy()
    torch.manual_seed(5)
    state, functions = torch.get_rng_state(), (torch.feature_dropout, torch.nn.functional.dropout2d)
    assert verify(TorchRun(module), mask_model(network), x, steps=2)
    assert [each.training for each in module.modules()] == modes
    assert all(torch.equal(value, weights[key]) for key, value in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.feature_dropout, torch.nn.functional.dropout2d) == functions
    assert "feature_dropout" not in vars(torch._VF)
