"""The torch half of a verification: a module's forward pass with only its dropout training, and torch's own masks.

torch is imported when it is asked for. Its CPU generator is mt19937, which no graph can hold: models that are to
follow it take their masks as inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop import io
from onnx_spatialdrop.errors import VerifyError
from onnx_spatialdrop.export.finish import require
from onnx_spatialdrop.verify.expose import expose
from onnx_spatialdrop.verify.framework import Array, FrameworkStep, Layer

if TYPE_CHECKING:
    from onnx_spatialdrop.export.torch.survey import Survey
    from onnx_spatialdrop.verify.torch_calls import Dropping

__all__ = ["TorchRun", "draw_masks", "keras_mask"]

Mask = npt.NDArray[np.bool_]
#: torch, x, a call -> y, the mask, and what kept values are multiplied by.
_Draw = Callable[[Any, Any, "Dropping"], tuple[Any, Any, float]]


class TorchRun:
    """A torch module on the CPU; steps follow one another as in a training loop, on one run of torch's generator.

    Each step runs the module twice from the same state of the generator. The first pass draws the masks that are fed to
    the model by torch's rule, ``empty(mask_shape).bernoulli_(1 - p)`` at each call. The second one runs torch's own
    dropout and notes what it did; that is what the model is compared with.

    Args:
        module: an nn.Module; its modes, weights and buffers stay as they are, and so does torch's generator.
        seed: what torch.manual_seed gets before step 0; None goes on from where the generator is now.
    """

    def __init__(self, module: Any, seed: int | None = 0) -> None:
        self._torch = require("torch", "torch")
        self.framework = f"torch {str(self._torch.__version__).split('+')[0]}"
        self._module = module
        self._layers: tuple[Layer, ...] = ()
        self._seen: Survey | None = None
        devices = {tensor.device.type for tensor in (*module.parameters(), *module.buffers())} - {"cpu"}
        if devices:
            raise VerifyError(f"the module is on {', '.join(sorted(devices))}; move it to the CPU: module.cpu()")
        with self._torch.random.fork_rng(devices=[]):
            if seed is not None:
                self._torch.manual_seed(seed)
            self._state = self._torch.get_rng_state()

    def begin(self, layers: Sequence[Layer]) -> None:
        """See FrameworkRun.

        Raises:
            VerifyError: a layer of the model draws its own mask.
        """
        own = next((layer for layer in layers if layer.mask_input is None), None)
        if own is not None:
            raise VerifyError(
                f"layer {own.name!r}: the model draws its mask itself (rng {own.rng!r}), and never torch's; export "
                "with mask_inputs=True, or compare expand(model, form='mask-inputs')"
            )
        self._layers = tuple(layers)

    def run(self, inputs: Mapping[str, Array], step: int) -> FrameworkStep:
        """See FrameworkRun; ``step`` says nothing, since the generator goes on by itself."""
        del step
        drawn, end = self._forward(inputs.values(), _redraw)
        done, self._state = self._forward(inputs.values(), _observe)
        if not self._torch.equal(end, self._state):
            raise VerifyError(
                f"{self.framework} leaves its generator elsewhere than bernoulli_ does: it draws dropout in another "
                "way than torch 2.13 did, and masks that are drawn beforehand would not be its own"
            )
        return replace(done, drawn=drawn.masks)

    def draw(self, args: Sequence[Any]) -> dict[str, Mask]:
        """Return the masks of the next forward pass by layer, and go on to the one after it."""
        done, self._state = self._forward(args, _redraw)
        return dict(done.masks)

    def _survey(self, tensors: Sequence[Any]) -> Survey:
        from onnx_spatialdrop.export.torch.survey import survey

        if self._seen is None:
            self._seen = survey(self._module, tuple(tensors), {})
        return self._seen

    def _forward(self, args: Iterable[Any], draw: _Draw) -> tuple[FrameworkStep, Any]:
        """Run the module from the noted state; return what it did, and the state that it leaves."""
        from onnx_spatialdrop.verify.torch_calls import Matcher, intercepted

        torch = self._torch
        masks: dict[str, Mask] = {}
        scales: dict[str, float] = {}
        inputs: dict[str, Array] = {}

        def drop(layer: Layer, x: Any, call: Dropping) -> Any:
            inputs[layer.name] = _like_the_layers(_numpy(torch, x.clone()), layer)
            y, mask, scales[layer.name] = draw(torch, x, call)
            masks[layer.name] = _like_the_layers(mask.contiguous().numpy(), layer)
            return y

        tensors = [each.clone() if isinstance(each, torch.Tensor) else torch.tensor(np.asarray(each)) for each in args]
        seen = self._survey(tensors)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), _inference(self._module):
            torch.set_rng_state(self._state)
            with intercepted(self._module, seen, Matcher(self._layers), drop):
                outputs = torch.utils._pytree.tree_leaves(self._module(*tensors))
            results = tuple(_numpy(torch, each) for each in outputs if isinstance(each, torch.Tensor))
            return FrameworkStep(results, masks, scales, inputs), torch.get_rng_state()


def _redraw(torch: Any, x: Any, call: Dropping) -> tuple[Any, Any, float]:
    """Draw as aten's dropout does: nothing for p = 1, else one number an entry, feature maps sharing one.

    A layer of a library's own draws in a way of its own, so it is run, on ones.
    """
    if call.ratio is None:
        weights = call.run(torch.ones_like(x))
        return x * weights, _entries(weights, call.axes) != 0, _scale(weights)
    shape = [1 if axis in call.axes else size for axis, size in enumerate(x.shape)]
    noise = torch.empty(shape, dtype=x.dtype) if call.axes else torch.empty_like(x)
    mask = torch.zeros_like(noise) if call.ratio == 1.0 else noise.bernoulli_(1.0 - call.ratio)
    scale = 1.0 if call.ratio == 1.0 else 1.0 / (1.0 - call.ratio)
    return torch.where(mask.bool(), x * scale, torch.zeros((), dtype=x.dtype)), mask.bool(), scale


def _observe(torch: Any, x: Any, call: Dropping) -> tuple[Any, Any, float]:
    """Run torch's own dropout, and once more on ones from the same state: a map of zeros shows no mask."""
    before = torch.get_rng_state()
    weights = call.run(torch.ones_like(x))
    torch.set_rng_state(before)
    return call.run(x), _entries(weights, call.axes) != 0, _scale(weights)


def _entries(weights: Any, axes: tuple[int, ...]) -> Any:
    """Return one of the equal weights along each shared axis."""
    return weights[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(weights.dim()))]


def _scale(weights: Any) -> float:
    """Return what kept values are multiplied by; 1 where none is kept."""
    return float(weights.max()) if bool((weights != 0).any()) else 1.0


def _like_the_layers(array: Array, layer: Layer) -> Array:
    """Return a tensor of torch's as the model has it: torch runs an unbatched input as a batch of one."""
    return array[0] if layer.rank == array.ndim - 1 and array.shape[0] == 1 else array


def _numpy(torch: Any, tensor: Any) -> Array:
    found: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
    return found


@contextmanager
def _inference(module: Any) -> Iterator[None]:
    """Put every module in inference mode, flag by flag, inside the context; dropouts are turned on where called."""
    flags = [(each, each.training) for each in module.modules()]
    try:
        for each, _ in flags:
            each.training = False
        yield
    finally:
        for each, flag in flags:
            each.training = flag


def draw_masks(
    module: Any, args: Sequence[Any], model: io.Source, *, seed: int | None = 0, steps: int = 1
) -> list[dict[str, Mask]]:
    """Return what torch's dropouts would draw in forward passes of a training loop, ready to be fed to a model.

    Args:
        module: an nn.Module on the CPU; it stays as it is, and so does torch's generator.
        args: the arguments of its forward: tensors or arrays.
        model: its export with mask inputs: a path, an onnx.ModelProto or an ir.Model.
        seed: what torch.manual_seed gets before the first pass; None goes on from where the generator is now.
        steps: how many passes.

    Returns:
        For each pass the masks by the names of the model's inputs, as ``session.run`` takes them.

    Raises:
        VerifyError: the model has no mask inputs; a layer of the model was not called by the module.
    """
    run, layers = TorchRun(module, seed), expose(model).layers
    run.begin(layers)
    found = []
    for _ in range(steps):
        masks = run.draw(args)
        missing = [layer.name for layer in layers if layer.name not in masks]
        if missing:
            raise VerifyError(f"the module's forward pass calls no dropout in {', '.join(map(repr, missing))}")
        found.append({layer.mask_input or "": masks[layer.name] for layer in layers})
    return found


def keras_mask(noise_shape: Sequence[int], rate: float, seed: int, counter: int) -> Mask:
    """Return the mask that a layer of Keras 3.15 draws on its torch backend, on the CPU.

    This holds for SpatialDropout1D, 2D and 3D, and for Dropout with a noise_shape or a seed; any other Dropout is
    torch's own, on torch's generator. Nothing is drawn, and the counter stays, for the rates 0 and 1.

    Args:
        noise_shape: the mask's shape.
        rate: the layer's rate, in (0, 1).
        seed: the first number of its SeedGenerator's state.
        counter: the second one, before the call.

    Returns:
        bool, True where kept.

    Raises:
        SpatialDropError: torch is not installed.
    """
    torch = require("torch", "torch")
    generator = torch.Generator().manual_seed((seed + counter) & 0xFFFFFFFF)
    kept: Mask = torch.bernoulli(torch.full(tuple(noise_shape), 1.0 - rate), generator=generator).numpy() != 0
    return kept
