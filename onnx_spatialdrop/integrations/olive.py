"""Passes and surgeons for Olive, which imports this module. They rewrite nothing themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import onnx
from olive.passes import Pass
from olive.passes.onnx.common import get_external_data_config, model_proto_to_olive_model
from olive.passes.onnx.graph_surgeries import GraphSurgeries, ProtoSurgeon
from olive.passes.pass_config import PassConfigParam

from onnx_spatialdrop.montecarlo.onefile import monte_carlo
from onnx_spatialdrop.passes.attach import attach
from onnx_spatialdrop.passes.expand import expand
from onnx_spatialdrop.passes.fuse import fuse
from onnx_spatialdrop.passes.to_inference import to_inference

__all__ = [
    "AttachSpatialDropout",
    "DropoutToInference",
    "ExpandSpatialDropout",
    "GraphSurgeries",  # Olive's own: found here, it has these surgeons
    "SpatialDropoutAttach",
    "SpatialDropoutExpand",
    "SpatialDropoutFuse",
    "SpatialDropoutMonteCarlo",
    "SpatialDropoutToInference",
]

_DEFAULTS = PassConfigParam(type_=bool, default_value=True, description="False: the switches have to be fed")


class _Rewrite(Pass):
    """A pass that calls one function of this package; its options are the function's keywords."""

    function: ClassVar[Callable[..., Any]]
    options: ClassVar[dict[str, Any]] = {}

    @classmethod
    def _default_config(cls, accelerator_spec: Any) -> dict[str, Any]:  # noqa: ARG003 - Olive's signature
        return {**cls.options, **get_external_data_config()}

    def _run_for_config(self, model: Any, config: Any, output_model_path: str) -> Any:
        from olive.model.utils import resolve_onnx_path

        options = {name: getattr(config, name) for name in self.options}
        made = type(self).function(model.load_model(), **options)
        return model_proto_to_olive_model(made, resolve_onnx_path(output_model_path, "model.onnx"), config)


class SpatialDropoutToInference(_Rewrite):
    """No dropout of any kind, and nothing in training mode: to_inference."""

    function = staticmethod(to_inference)


class SpatialDropoutFuse(_Rewrite):
    """Dropout in standard operators becomes nodes: fuse."""

    function = staticmethod(fuse)
    options: ClassVar[dict[str, Any]] = {
        "elementwise": PassConfigParam(type_=bool, default_value=False, description="take element-wise dropout, too"),
    }


class SpatialDropoutAttach(_Rewrite):
    """The operator's function body in the file: attach."""

    function = staticmethod(attach)
    options: ClassVar[dict[str, Any]] = {"defaults": _DEFAULTS}


class SpatialDropoutExpand(_Rewrite):
    """Nodes written out in standard operators: expand."""

    function = staticmethod(expand)
    options: ClassVar[dict[str, Any]] = {
        "form": PassConfigParam(type_=str, default_value=None, description="the form; the target's best by default"),
        "target": PassConfigParam(type_=str, default_value="onnxruntime", description="what runs the file"),
        "defaults": _DEFAULTS,
    }


class SpatialDropoutMonteCarlo(_Rewrite):
    """A file that sums up its own draws: monte_carlo."""

    function = staticmethod(monte_carlo)
    options: ClassVar[dict[str, Any]] = {
        "samples": PassConfigParam(type_=int, default_value=31, description="draws a run"),
        "task": PassConfigParam(type_=str, default_value="auto", description="what the outputs are"),
        "target": PassConfigParam(type_=str, default_value=None, description="what runs the file"),
    }


class DropoutToInference(ProtoSurgeon):
    """The surgeon of to_inference."""

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Return the rewritten model."""
        return to_inference(model)


class AttachSpatialDropout(ProtoSurgeon):
    """The surgeon of attach."""

    def __init__(self, defaults: bool = True) -> None:
        super().__init__()
        self.defaults = defaults

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Return the rewritten model."""
        return attach(model, defaults=self.defaults)


class ExpandSpatialDropout(ProtoSurgeon):
    """The surgeon of expand."""

    def __init__(self, form: str | None = None, target: str = "onnxruntime", defaults: bool = True) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"form": form, "target": target, "defaults": defaults}

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Return the rewritten model."""
        expanded: onnx.ModelProto = expand(model, **self.options)
        return expanded
