"""Record what torch's dropout does in five training-mode passes of the networks whose exports are in ../torch.

Run `PYTHONPATH=tests python tests/data/torch_masks/build.py` in an environment with onnx_spatialdrop[torch]. The tests
read the files without torch.
"""

import json
from pathlib import Path

import torch
from export.torch_networks import NETWORKS

import onnx_spatialdrop as sd
from onnx_spatialdrop.verify import record, verify

HERE = Path(__file__).parent


def main() -> None:
    for network in NETWORKS:
        name = network.name.lower().replace(" ", "_")
        model = sd.expand(HERE.parent / "torch" / f"{name}.onnx", form="mask-inputs")
        file = record(network.module(), model, HERE / f"{name}.npz", network.input(2).numpy())
        assert verify(file, model)
    (HERE / "versions.json").write_text(json.dumps({"torch": torch.__version__.split("+")[0]}) + "\n")


if __name__ == "__main__":
    main()
