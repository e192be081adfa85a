"""What one export of torch's does with dropouts: which become markers, and which are left out. Without torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from onnx_spatialdrop.errors import SpatialDropError
from onnx_spatialdrop.export.finish import Dropout
from onnx_spatialdrop.export.left_out import LeftOut
from onnx_spatialdrop.export.markers import Call
from onnx_spatialdrop.graph.layers import LAYER_KEY

if TYPE_CHECKING:
    from onnx_spatialdrop.export.torch.survey import Survey

__all__ = ["Capture", "shared_axes"]

_REFUSED: Final = {
    "feature_alpha": (
        "is feature alpha dropout, which moves kept and dropped maps by constants that no SpatialDropout node has",
        "nn.Dropout2d",
    ),
    "alpha": (
        "is alpha dropout, which moves kept and dropped values by constants that no SpatialDropout node has",
        "nn.Dropout, leave elementwise=False",
    ),
}
_ASK: Final = "elementwise=True keeps it"
_HIDDEN: Final = "its module does something else then, too; export it in training mode, with keep_mode=True"
_NO_MASK: Final = "no mask and factor can say it"
#: Kind of a dropout that is left out -> what it is, and what to do about it.
_LEFT_OUT: Final = {
    "feature": ("spatial dropout that shows in training mode only", _HIDDEN),
    "elementwise": ("element-wise dropout", _ASK),
    "alpha": ("alpha dropout", _NO_MASK),
    "composite": (
        "dropout inside of attention or a recurrent layer",
        "export the module, not a program of it, with elementwise=True",
    ),
    "hidden": ("element-wise dropout that shows in training mode only", _HIDDEN),
    "failure": ("whatever shows in training mode only", ""),
}


@dataclass
class Capture:
    """What one context of exports does with dropouts, and what it has seen.

    Attributes:
        dropout: "inference" takes them out; else they become markers.
        elementwise: whether element-wise dropout becomes markers too; False leaves it out, None does so and tells.
        keep_mode: whether the modules keep their modes; then element-wise dropouts that stay do as theirs say.
        programs: how many exported programs have been searched.
        refusal: why one of them cannot be exported; torch would wrap the error if it was raised at once.
        calls: the calls that became markers, by their numbers.
        left_out: what was left out so far.
        modules: the names of the modules that are exported.
        running: those that are running while TorchScript traces, innermost last, each with all its names.
        surveyed: whether what is left out is known of the module, so that its program need not tell.
    """

    dropout: Dropout = "op"
    elementwise: bool | None = None
    keep_mode: bool = False
    programs: int = 0
    refusal: SpatialDropError | None = None
    calls: dict[int, Call] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    modules: tuple[str, ...] = ()
    running: list[tuple[str, ...]] = field(default_factory=list)
    surveyed: bool = False

    def fate(self, kind: str, ratio: float) -> Literal["capture", "off", "keep"]:
        """Return what becomes of a dropout of this kind, whatever its own ``training`` says.

        In inference mode ``training=self.training`` is False and looks as a False written by hand does; the model's
        switch decides when the model runs.
        """
        if self.dropout == "inference" or ratio == 0.0:
            return "off"
        if kind.startswith("feature") or self.elementwise:
            return "capture"
        return "keep" if self.keep_mode else "off"

    def note(
        self, layer: str, kind: str, ratio: float, rank: int, dtype: object, axes: tuple[int, ...], scaled: bool = True
    ) -> int:
        """Take down a call that becomes a marker, and return its number.

        Args:
            layer: the qualified name of the module that calls.
            kind: what it calls; see functions.KINDS.
            ratio: fraction dropped.
            rank: the rank of what it is called on.
            dtype: torch's type of that.
            axes: the axes along which it shares mask entries.
            scaled: whether what it keeps is multiplied by 1 / (1 - ratio).

        Raises:
            SpatialDropError: a kind that SpatialDropout cannot express.
        """
        if kind in _REFUSED:
            reason, instead = _REFUSED[kind]
            where = f"layer {layer!r}" if layer else "the module"
            self.refusal = SpatialDropError(
                f"{where} {reason}; replace it by {instead}, or export with dropout='inference', which takes it out"
            )
            raise self.refusal
        number = len(self.calls)
        name = str(dtype).removeprefix("torch.")
        self.calls[number] = Call(layer, ratio, axes, rank, name, metadata={LAYER_KEY: layer}, scaled=scaled)
        return number

    def leave_out(self, layer: str, kind: str, ratio: float | None) -> None:
        """Take down a dropout that the model will not have, unless the caller has asked for that."""
        if self.dropout != "inference" and (self.elementwise is not False or kind.startswith("feature")):
            self.left_out.append(LeftOut(layer, *_LEFT_OUT[kind], ratio))

    def compare(self, seen: Survey) -> None:
        """Take down what a survey has seen of a module and the model will not have."""
        self.surveyed = True
        for call in seen.calls:
            if call.layer in seen.hidden and not self.keep_mode:
                self.leave_out(call.layer, "feature" if call.kind.startswith("feature") else "hidden", call.ratio)
            elif self.fate(call.kind, call.ratio) == "off":
                self.leave_out(call.layer, call.kind, call.ratio)
        for name, ranks in seen.custom.items():
            for custom in ranks.values():
                if self.fate("feature" if custom.axes else "elementwise", custom.ratio) == "off":
                    self.leave_out(name, "elementwise", custom.ratio)
        if self.dropout == "inference" or self.keep_mode:
            return
        for name, operators in seen.unknown.items():
            self.left_out.append(LeftOut(name, f"noise ({', '.join(operators)})", _NO_MASK, None))
        if seen.failure:
            self.leave_out("", "failure", None)
            self.left_out[-1:] = [replace(each, advice=seen.failure) for each in self.left_out[-1:]]


def shared_axes(kind: str, rank: int) -> tuple[int, ...]:
    """Return the axes along which a dropout of torch's shares mask entries: a map is everything from axis 2 on."""
    return tuple(range(2, rank)) if kind.startswith("feature") else ()
