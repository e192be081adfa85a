"""What is printed of results, and entropies of probabilities that are exactly 0."""

import numpy as np
import pytest
from zoo import FOLDER

import onnx_spatialdrop as sd
from onnx_spatialdrop.montecarlo.result import MCResult, Statistics


def sure(task: str = "classification") -> Statistics:
    mean = np.array([[1.0, 0.0], [0.5, 0.5]], np.float32)
    sums = {"mean": mean, "squares": np.full_like(mean, 4), "divergence": np.array([0, 31], np.float32)}
    return Statistics("logits", task, 1, np.array([31, 31]), sums)


def test_a_probability_of_zero_has_no_entropy_and_no_warning() -> None:
    np.testing.assert_allclose(sure().entropy, [0, np.log(2)])
    assert sure().entropy.dtype == np.float64


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (
            "classification",
            "Statistics('logits': classification of shape (2, 2), 31 draws, mean entropy 0.347 nats, "
            "mean mutual information 0.5 nats)",
        ),
        ("regression", "Statistics('logits': regression of shape (2, 2), 31 draws, mean standard deviation 0.359)"),
    ],
)
def test_a_result_prints_as_a_line_an_output(task: str, said: str) -> None:
    one = sure(task)
    sums = {key: array for key, array in one.sums.items() if task == "classification" or key != "divergence"}
    one = Statistics("logits", task, 1, one.samples, sums)
    assert repr(one) == said
    assert repr(MCResult({"logits": one}, {}, np.arange(2))) == f"MCResult(2 rows:\n  {said})"


def test_rows_that_stopped_early_are_said() -> None:
    one = sure()
    early = Statistics(one.name, one.task, 1, np.array([16, 31]), one.sums)
    assert "16 to 31 draws" in repr(early)


def test_a_cut_prints_as_its_report() -> None:
    cut = sd.split(FOLDER / "digits_torch.onnx")
    assert repr(cut) == f"Split(\n{cut.report}\n)"
