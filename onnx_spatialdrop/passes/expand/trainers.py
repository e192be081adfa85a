"""Make a model acceptable to a trainer, or to a runtime without functions, before its nodes are written out.

What they cannot read is changed where that changes no meaning, and refused elsewhere; ``said`` tells what was done.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.errors import FormError
from onnx_spatialdrop.operator import node as op
from onnx_spatialdrop.passes.expand import targets
from onnx_spatialdrop.passes.expand.gradients import GradientsPass
from onnx_spatialdrop.passes.opset import InlineFunctionsPass, OpsetPass

__all__ = ["PREPARED_KEY", "TRAINERS", "TrainerPass"]

#: Opsets that a trainer takes as they are, and those to convert others to, the best first. onnx2torch reads opset 18,
#: but not its Pad, Resize, Split and Reduce* operators, so models go to 17 where onnx can take them there.
TRAINERS: Final[dict[str, tuple[range, tuple[int, ...]]]] = {
    "onnxruntime-training": (range(12, 22), (21, 18, 12)),
    "onnx2torch": (range(12, 18), (17, 18)),
    "onnx2pytorch": (range(9, 22), (21, 18, 17)),
}

#: The newest IR version that onnxruntime-training 1.19.2 reads.
_LAST_IR: Final = 10

#: Key in the model's metadata_props under which it says what was done to it.
PREPARED_KEY: Final = "onnx_spatialdrop.prepared"


class TrainerPass(ir.passes.InPlacePass):
    """Prepare a model for a target; ``said`` holds one line for each change.

    1. Functions are written out where they are called: no trainer knows them, nor do OpenVINO and tract, for which
       this is all that is done.
    2. The opset is converted where the trainer does not read it, down to the first of TRAINERS that onnx can convert
       the model to, or up to its oldest.
    3. For onnxruntime-training, the IR version is lowered to 10, and If, Loop and Scan are refused: it ends the process
       on them.
    4. For onnx2torch, ``allowzero`` goes from every Reshape whose constant target has no 0, where it says nothing:
       torch.onnx writes it, and onnx2torch refuses it.
    5. For onnxruntime-training, unless ``gradients`` is False, nodes are written so that their gradients are right: see
       GradientsPass.
    6. What was done is written into the model's metadata_props. For any other target, and where nothing has to be
       done, the model is not modified.
    """

    def __init__(self, target: str, gradients: bool = True) -> None:
        super().__init__()
        self.target = targets.resolve(target)
        self.gradients = gradients
        self.said: list[str] = []

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the pass on ``model``, in place."""
        self.said = []
        if self.target not in TRAINERS and self.target not in targets.NO_FUNCTIONS:
            return ir.passes.PassResult(model, modified=False)  # case 6
        if InlineFunctionsPass().call(model).modified:  # case 1
            self.said.append(f"functions written out where they are called: {self.target} knows none")
        if self.target in TRAINERS:
            self._convert(model)
        if self.target == "onnxruntime-training":
            self._for_onnxruntime(model)
            if self.gradients:
                write = GradientsPass()
                write.call(model)  # case 5
                self.said.extend(write.said)
        if self.target == "onnx2torch":
            self._drop_allowzero(model)
        if self.said:
            model.metadata_props[PREPARED_KEY] = "; ".join(self.said)
        return ir.passes.PassResult(model, modified=bool(self.said))

    def _convert(self, model: ir.Model) -> None:  # case 2
        before = model.opset_imports.get("", 1)
        readable, wanted = TRAINERS[self.target]
        if before in readable:
            return
        if before < readable[0]:
            wanted = (readable[0],)
        for version in wanted:
            if version == before:
                return  # nothing better can be had, and this one is read
            try:
                OpsetPass(version).call(model)
            except FormError:
                if version == wanted[-1]:
                    raise
                continue
            self.said.append(f"opset {before} converted to {version}: {self.target} does not read all of {before}")
            return

    def _for_onnxruntime(self, model: ir.Model) -> None:  # case 3
        for node in model.graph.all_nodes():
            if node.domain == "" and node.op_type in ("If", "Loop", "Scan"):
                raise FormError(
                    f"{op.describe(node)} is {node.op_type}, on which onnxruntime-training ends the process; "
                    "export the branch that is to be trained, or train with PyTorch (target='onnx2pytorch')"
                )
        if model.ir_version is not None and model.ir_version > _LAST_IR:
            self.said.append(f"IR version {model.ir_version} lowered to {_LAST_IR}: {self.target} reads no newer")
            model.ir_version = _LAST_IR

    def _drop_allowzero(self, model: ir.Model) -> None:  # case 4
        count = 0
        for node in model.graph.all_nodes():
            if node.op_type != "Reshape" or "allowzero" not in node.attributes:
                continue
            shape = ir.convenience.get_const_tensor(node.inputs[1]) if node.inputs[1] is not None else None
            if shape is not None and not np.any(shape.numpy() == 0):
                del node.attributes["allowzero"]
                count += 1
        if count:
            self.said.append(f"allowzero taken from {count} Reshape nodes without a 0: {self.target} refuses it")
