"""After fusing, a model drops with the same probability and shares entries along the same axes as before."""

import math

import numpy as np
import onnx
import onnxruntime
import pytest
from exported import EXPORTED, exported

import onnx_spatialdrop as sd

#: One-layer files, relu -> dropout -> sigmoid or dropout alone, that ONNX Runtime can run.
FILES = [
    "torch_dropout2d_train_dynN_opt.onnx",
    "torch_dropout2d_train_dynN_noopt.onnx",
    "torch_dropout3d_train_dynall_opt.onnx",
    "torch_hand_rand_where_train_dynN.onnx",
    "torch_hand_drop_path_floor_train_dynN.onnx",
    "torchlegacy_hand_rand_gt_train_opset11.onnx",
    "tfkeras_spatialdropout1d_mc_opset11.onnx",
    "tfkeras_spatialdropout2d_dynhw_mc.onnx",
    "keras212_spatialdropout3d_mc_opset11.onnx",
    "keras215_dropout_noise_shape_feature_mc.onnx",
    "keras215_hand_tf1_floor_opset15.onnx",
]
BATCH = 3000


def kept(model: onnx.ModelProto) -> np.ndarray:
    """Return where the layer kept its input, and check that kept values were scaled and dropped ones are 0."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    given = session.get_inputs()[0]
    shape = [size if isinstance(size, int) else 3 for size in given.shape]
    shape[0] = BATCH
    x = np.full(shape, 0.5, np.float32)
    y = session.run(None, {given.name: x})[0]
    values = np.unique(y)
    assert len(values) == 2
    dropped = values[0]
    assert dropped == 0.5  # sigmoid(0)
    return y != dropped


def entries(mask: np.ndarray, axes: list[int]) -> np.ndarray:
    """Return one value an entry; every entry must be the same along ``axes``."""
    first = mask[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(mask.ndim))]
    assert np.array_equal(np.broadcast_to(first, mask.shape), mask)
    return first


def bounds(n: int, p: float, tail: float = 1e-9) -> tuple[int, int]:
    """Return the smallest and largest count that n draws of probability p give but for ``tail`` on either side."""
    total, low, high = 0.0, 0, n
    log = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)]
    mass = [math.exp(c + k * math.log(p) + (n - k) * math.log1p(-p)) for k, c in enumerate(log)]
    for k in range(n + 1):
        total += mass[k]
        if total > tail:
            low = k
            break
    total = 0.0
    for k in range(n, -1, -1):
        total += mass[k]
        if total > tail:
            high = k
            break
    return low, high


@pytest.mark.parametrize("name", FILES)
def test_the_distribution_is_the_one_before(name: str) -> None:
    ((_, ratio, _, axes),) = EXPORTED[name]["expected"]
    before = onnx.load(exported(name))
    after = sd.fuse(before)
    if next(o.version for o in after.opset_import if o.domain == "") < 15:
        masks = [kept(before)]  # no body exists for so old an opset; the rest is checked on its own
    else:
        masks = [kept(before), kept(sd.attach(after))]
    for mask in masks:
        drawn = entries(mask, axes)
        low, high = bounds(drawn.size, 1 - ratio)
        assert low <= int(drawn.sum()) <= high


def test_entries_rejects_a_mask_that_varies_along_a_shared_axis() -> None:
    mask = np.ones((2, 3, 4), bool)
    mask[0, 1, 2] = False
    with pytest.raises(AssertionError):
        entries(mask, [1])


def test_bounds_are_those_of_the_binomial() -> None:
    assert bounds(2, 0.5, tail=0.2) == (0, 2)
    assert bounds(2, 0.5, tail=0.3) == (1, 1)
