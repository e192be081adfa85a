"""Keras's own masks of five training-mode passes, recorded, against the exports beside them. Needs no Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_networks import COUNTING, NETWORKS, VERIFIED

import onnx_spatialdrop as sd
from onnx_spatialdrop import io
from onnx_spatialdrop.export.counters import NEXT_STEP_KEY
from onnx_spatialdrop.graph.scopes import spatial_dropouts
from onnx_spatialdrop.kernels import native
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.verify import Recording, verify

FOLDER = Path(__file__).parents[1] / "data" / "keras_masks"
ON_JAX = [*(network for network in (*NETWORKS, *COUNTING) if not network.startswith("unet3d"))]  # it exports no more
RECORDED = {
    "keras_tf": [*NETWORKS, *COUNTING],
    "keras_tf_xla": [*NETWORKS, *COUNTING],
    "keras_jax": ON_JAX,
}
ALL = {f"{rng}_{network}": rng for rng, networks in RECORDED.items() for network in networks}
each = pytest.mark.parametrize("name", ALL)


def file(name: str) -> Path:
    return FOLDER / f"{name}.onnx"


def recording(name: str) -> Path:
    return FOLDER / f"{name}.npz"


def test_every_file_is_tested_and_says_what_wrote_it() -> None:
    stems = {path.stem for path in FOLDER.glob("*.onnx")}
    assert stems == set(ALL)
    assert {Recording(recording(name)).framework for name in stems} == {
        "keras 3.15.1 on jax 0.10.2 (recorded)",
        "keras 3.15.1 on tensorflow 2.21.0 (recorded)",
        "keras 3.15.1 on tensorflow 2.21.0 (XLA) (recorded)",
    }


def network(name: str) -> str:
    return name.removeprefix(f"{ALL[name]}_")


def check(name: str, model: Any, **options: Any) -> None:
    result = verify(recording(name), model, **{**VERIFIED.get(network(name), {}), **options})
    assert result, str(result)
    assert result.steps == 5
    assert sum(layer.equal for layer in result.layers) == sum(layer.entries for layer in result.layers) >= 100
    assert sum(layer.dropped for layer in result.layers) > 20


@pytest.mark.parametrize("name", [name for name in ALL if "runtime" not in VERIFIED.get(network(name), {})])
@pytest.mark.parametrize("kernel", ["native", "python", "body"])
def test_every_mask_and_output_in_onnx_runtime(name: str, kernel: Any) -> None:
    if kernel == "native" and native.missing_reason() is not None:
        pytest.skip(f"{native.missing_reason()}; install the package: pip install .")
    check(name, file(name), kernel=kernel)


# onnx's evaluator cannot run what jax2onnx makes of an LSTM, with our nodes or without: "Inconsistent permutation".
@pytest.mark.parametrize("name", [name for name in ALL if name != "keras_jax_text_lstm"])
def test_every_mask_and_output_in_onnx_s_evaluator(name: str) -> None:
    check(name, file(name), runtime="reference")


@pytest.mark.parametrize("name", [name for name in ALL if name.endswith(("uneven", "mixed_float16"))])
@pytest.mark.parametrize("form", ["philox", "philox-int32"])
def test_every_output_in_standard_ops(name: str, form: str) -> None:
    run, session = Recording(recording(name)), sd.session(sd.expand(file(name), form=form))
    for number in range(run.steps):
        done = run.run(run.inputs, number)
        assert done.step is not None
        got = session.run(None, {**run.inputs, "training_mode": np.array(True), "step": done.step})
        for ours, theirs in zip(got, done.outputs, strict=True):
            scale = max(1.0, float(np.abs(theirs).max()))
            limit = (5e-3 if theirs.dtype == np.float16 else 1e-5) * scale
            np.testing.assert_allclose(ours.astype(np.float64), theirs.astype(np.float64), rtol=0, atol=limit)


@each
@pytest.mark.openvino
def test_every_mask_and_output_in_openvino(name: str) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed (pip install openvino)")
    check(name, file(name), runtime="openvino")


@each
def test_taken_out_it_leaves_nothing_of_steps_and_seeds(name: str) -> None:
    clean = sd.to_inference(io.load(file(name)))
    assert len(clean.graph.inputs) == 1
    assert not spatial_dropouts(clean)
    left = [*clean.graph.initializers, *(node.name or "" for node in clean.graph)]
    assert not [each for each in left if each.startswith(("step", "training_mode"))]


@each
def test_seeds_are_unique_and_the_next_step_is_told(name: str) -> None:
    model = io.load(file(name))
    found = [op.read(site.node) for site in spatial_dropouts(model)]
    assert len({each.seed for each in found}) == len(found)
    assert {each.rng for each in found} == {ALL[name]}
    assert model.metadata_props[NEXT_STEP_KEY] == "0"


def steps_of(name: str) -> dict[str, str]:
    return {site.node.name or "": site.node.inputs[2].name or "" for site in spatial_dropouts(io.load(file(name)))}


def test_what_generators_do_unevenly_is_in_their_steps() -> None:
    assert set(steps_of("keras_jax_cnn2d").values()) == {"step"}
    assert steps_of("keras_tf_uneven") == {
        "once": "step/times_3_plus_0",
        "noise": "step/times_3_plus_2_sequence_1",
        "ahead": "step/times_1_plus_10",
        "all": "step",
        "time/each": "step/times_3_plus_0_sequence_2",
        "time/each:1": "step/times_3_plus_1_sequence_3",
        "time/each:2": "step/times_3_plus_2_sequence_4",
    }


def test_a_fresh_draw_is_another_one_in_each_call_of_a_layer() -> None:
    session = sd.session(file("keras_tf_uneven"), kernel="python")
    x = np.ones((4, 6, 8), np.float32)
    on = {session.get_inputs()[0].name: x, "training_mode": np.array(True)}
    assert len({session.run(None, on)[0].tobytes() for _ in range(4)}) == 4
