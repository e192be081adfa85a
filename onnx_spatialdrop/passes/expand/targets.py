"""Which runtime runs which form: one table, and the refusals that name what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Final

from onnx_spatialdrop import arguments
from onnx_spatialdrop.errors import FormError

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnx_spatialdrop.graph.build import NodeBuilder
    from onnx_spatialdrop.passes.expand.task import Task

__all__ = [
    "ALIASES",
    "BATCHED",
    "FORMS",
    "NO_DEFAULTS",
    "NO_FRESH_DRAW",
    "NO_FUNCTIONS",
    "SINGLE_STEP",
    "TARGETS",
    "check",
    "choose",
    "lowering_of",
    "resolve",
    "runs_dialect",
]

#: Each form, and the function of a neighbouring module that writes one node in it; "identity" writes nothing.
FORMS: Final = {
    "philox": "inlined.lower",
    "philox-int32": "inlined.lower_int32",
    "uniform": "uniform.lower",
    "dropout": "dropout.lower",
    "standard": "standard.lower",
    "mask-inputs": "mask_inputs.lower",
    "identity": "",
}

#: The first opset of "mask-inputs", which runs everywhere and is never chosen: somebody has to feed the masks.
_FIRST_MASK_INPUTS: Final = 9

_ONNXRUNTIME: Final[dict[str, tuple[int, int | None]]] = {
    "philox": (18, None),
    "uniform": (9, 21),  # no CPU kernel of RandomUniform and RandomUniformLike from 22 on (onnxruntime #32201)
    "dropout": (12, None),
    "philox-int32": (18, None),
}

#: For each target its forms, the best first, each with its first and last opset (None: no end); "identity" is no
#: question of the target.
TARGETS: Final[dict[str, dict[str, tuple[int, int | None]]]] = {
    "onnxruntime": _ONNXRUNTIME,
    "onnxruntime-node": _ONNXRUNTIME,
    "onnxruntime-web": _ONNXRUNTIME,
    "openvino": {"philox-int32": (18, None), "uniform": (9, None)},
    "tract": {"philox-int32": (18, None), "uniform": (9, None)},
    "onnxruntime-training": {"dropout": (12, 21), "uniform": (9, 21), "philox": (18, 21), "philox-int32": (18, 21)},
    "onnx2torch": {"dropout": (12, 18)},
    "onnx2pytorch": {"uniform": (9, None)},
    "triton": {"philox": (18, None), "philox-int32": (18, None)},
    "onnx": {"standard": (28, None)},  # what onnx/onnx #8161 proposes: no runtime has it yet
    "reference": {
        "philox": (18, None),
        "philox-int32": (18, None),
        "uniform": (9, None),
        "dropout": (12, None),
    },
}

#: Targets that take an input with a default for a constant, or cannot feed it (ONNX Runtime's JavaScript interface
#: leaves such a feed out without a word), so that a switch must lose its default to remain one.
NO_DEFAULTS: Final = frozenset({"onnxruntime-node", "onnxruntime-web", "openvino", "tract", "onnx2pytorch"})

#: Targets that have to know all shapes before they run, so that neither how many steps there are nor whether anything
#: is drawn can depend on what is fed, or whose generator takes one: one step a run.
SINGLE_STEP: Final = frozenset({"tract", "onnx"})

#: Targets without a fresh draw, where ``step`` loses a negative default.
NO_FRESH_DRAW: Final = frozenset({"onnx"})

#: Servers that lay requests behind each other: every input has to have the batch as its first axis, and none a default.
BATCHED: Final = frozenset({"triton"})

#: Targets that know no model-local functions: those are written out where they are called.
NO_FUNCTIONS: Final = frozenset({"openvino", "tract"})

ALIASES: Final = {"training": "onnxruntime-training"}

#: Runtimes for which no form is right: jaxonnxruntime makes a constant of a Dropout's seed and runs no other form.
_NODE_ITSELF: Final = ("jax", "jaxonnxruntime")

#: Tools that run no form with a switch and a draw right, and what to give them.
_REFUSED: Final = {
    "onnx2tf": "takes the form 'dropout' alone, and then drops in every run, whatever training_mode says; "
    "to_inference(model) gives a file that it converts",
    "iree": "draws other masks by 'philox-int32' for OpenVINO, and does not compile all that is for tract; "
    "expand(model, form='mask-inputs', defaults=False) gives a file that it runs",
    "tensorrt": "has no BitwiseXor for the operator's bits and ignores the seed of RandomUniform; "
    "expand(model, form='mask-inputs', defaults=False) needs neither",
}


def resolve(target: str, *others: str) -> str:
    """Return the name of a target, aliases replaced.

    Args:
        target: the name, or an alias.
        others: names that the caller knows besides.

    Raises:
        FormError: an unknown target.
    """
    name = ALIASES.get(arguments.string(target, "target"), target)
    if name in _NODE_ITSELF:
        raise FormError(
            f"target is {target!r}, which draws one mask for ever in any form that it runs; "
            "onnx_spatialdrop.training.jax.convert makes a JAX function of the model, the nodes in it"
        )
    if name in _REFUSED:
        raise FormError(f"target is {target!r}, which {_REFUSED[name]}")
    if name not in (*TARGETS, *others):
        raise FormError(f"target is {target!r}; known: {', '.join([*TARGETS, *ALIASES, *others])}")
    return name


def runs_dialect(form: str, target: str, rng: str) -> bool:
    """Return whether ``target`` runs ``form`` for nodes that draw by ``rng``; tract does not come back from others."""
    return form != "philox-int32" or target not in SINGLE_STEP or rng == "philox"


def check(form: str, target: str, opset: int, where: str) -> None:
    """Check that ``target`` runs ``form`` at ``opset``.

    Raises:
        FormError: an unknown form; or one that the target does not run, at all or at that opset.
    """
    if form not in FORMS:
        raise FormError(f"form is {form!r}; allowed: {', '.join(FORMS)}")
    if form == "identity":
        return
    if form == "mask-inputs":
        if opset < _FIRST_MASK_INPUTS:
            raise FormError(f"{where}: form {form!r} needs opset 9 or newer (Where), and the model imports {opset}")
        return
    forms = TARGETS[target]
    if form not in forms:
        allowed = ", ".join([*forms, "mask-inputs", "identity"])
        hint = "; no runtime has it yet, and target='onnx' writes it" if form in TARGETS["onnx"] else ""
        raise FormError(f"{where}: form {form!r} does not run in {target}; allowed there: {allowed}{hint}")
    first, last = forms[form]
    if opset < first or (last is not None and opset > last):
        raise FormError(
            f"{where}: form {form!r} in {target} needs opset {_span(first, last)}, "
            f"and the model imports {opset}; {_advice(target, opset, first, last)}"
        )


def lowering_of(form: str) -> Callable[[NodeBuilder, Task], tuple[ir.Value, ir.Value]]:
    """Return what appends the nodes of a form to a builder, and returns Y and the mask."""
    module, function = FORMS[form].split(".")
    found: Callable[[NodeBuilder, Task], tuple[ir.Value, ir.Value]]
    found = getattr(import_module(f"{__package__}.{module}"), function)
    return found


def choose(target: str, opset: int, where: str, rng: str = "philox") -> str:
    """Return the best form for ``target`` at ``opset`` for a node that draws by ``rng``.

    Raises:
        FormError: there is none.
    """
    for form, (first, last) in TARGETS[target].items():
        if opset >= first and (last is None or opset <= last) and runs_dialect(form, target, rng):
            return form
    spans = ", ".join(f"{form!r} at opset {_span(*span)}" for form, span in TARGETS[target].items())
    raise FormError(
        f"{where}: the model imports opset {opset}, where {target} runs no form; it runs {spans}; "
        "convert the model's opset before expanding"
    )


def _span(first: int, last: int | None) -> str:
    return f"{first} or newer" if last is None else f"{first} to {last}"


def _advice(target: str, opset: int, first: int, last: int | None) -> str:
    others = [
        repr(form) for form, (start, end) in TARGETS[target].items() if opset >= start and (end is None or opset <= end)
    ]
    nearest = first if opset < first else last
    convert = f"convert the model's opset to {nearest} before expanding"
    return f"use form={' or '.join(others)}, or {convert}" if others else convert
