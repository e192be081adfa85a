"""What draws say: mean, spread and entropies of each output, from sums that were kept of the draws.

It computes with arrays and knows no graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onnx_spatialdrop.errors import SpecError

__all__ = ["MCResult", "Statistics"]

Array = npt.NDArray[Any]
_TINY = 1e-300


@dataclass(frozen=True, repr=False)
class Statistics:
    """The statistics of one output.

    Attributes:
        name: the output.
        task: "classification", "binary" or "regression".
        axis: the axis of classes, of the output as the network gives it; -1 where there is none.
        samples: how many draws each row had, int64 [N].
        sums: what was kept of the draws: "mean" and, where asked for, "squares" (of the distances to it), "divergence"
            (sum of KL(p_t || mean)), "votes" (draws whose largest class it was), "noise" (mean of exp(log variance)).
        draws: the draws themselves, [T, N, ...], or None.
    """

    name: str
    task: str
    axis: int
    samples: Array
    sums: dict[str, Array]
    draws: Array | None = None

    def __repr__(self) -> str:
        """What it is of, and averages over the rows: arrays fill screens."""
        least, most = (int(end) for end in (self.samples.min(), self.samples.max()))
        drawn = str(most) if least == most else f"{least} to {most}"
        said = [f"{self.name!r}: {self.task} of shape {self.mean.shape}", f"{drawn} draws"]
        if self.task != "regression":
            said.append(f"mean entropy {self.entropy.mean():.3g} nats")
        if "divergence" in self.sums:
            said.append(f"mean mutual information {self.mutual_information.mean():.3g} nats")
        if "squares" in self.sums and self.task == "regression":
            said.append(f"mean standard deviation {self.std.mean():.3g}")
        return f"Statistics({', '.join(said)})"

    @property
    def mean(self) -> Array:
        """The mean of the draws: of probabilities, or of values. Shape as the output."""
        return self.sums["mean"]

    @property
    def epistemic(self) -> Array:
        """The variance over the draws (ddof = 0): what the network does not know. Shape as the output."""
        return self._sum("squares", "variance") / self._count(self.mean)

    @property
    def aleatoric(self) -> Array:
        """The mean of the noise that the network sees in its data (Kendall and Gal 2017). Shape as the output."""
        return self._sum("noise", "aleatoric")

    @property
    def variance(self) -> Array:
        """The variance: over the draws, and of the data where the network gives it. Shape as the output."""
        return self.epistemic + self.sums["noise"] if "noise" in self.sums else self.epistemic

    @property
    def std(self) -> Array:
        """The square root of the variance."""
        return np.asarray(np.sqrt(self.variance))

    @property
    def entropy(self) -> Array:
        """The entropy of the mean, in nats: the uncertainty in all. Shape without the axis of classes."""
        self._need_classes("entropy")
        mean = self.mean.astype(np.float64)  # whose smallest number is far below float32's
        total = -(mean * np.log(np.maximum(mean, _TINY)))
        if self.task == "binary":
            rest = 1 - mean
            return np.asarray(total - rest * np.log(np.maximum(rest, _TINY)))
        return np.asarray(total.sum(axis=self.axis))

    @property
    def mutual_information(self) -> Array:
        """The mean of KL(p_t || mean), in nats: what the network does not know. Never negative."""
        self._need_classes("mutual information")
        divergence = self._sum("divergence", "mutual_information")
        return divergence / self._count(divergence)

    @property
    def expected_entropy(self) -> Array:
        """The mean of the draws' entropies, in nats: what the data leave open. Entropy less mutual information."""
        return np.asarray(np.maximum(self.entropy - self.mutual_information, 0))

    @property
    def variation_ratio(self) -> Array:
        """The share of draws whose largest class is not the most frequent one (Freeman 1965)."""
        self._need_classes("variation ratio")
        votes = self._sum("votes", "variation_ratio")
        if self.task == "binary":
            total = self._count(votes)
            return np.asarray(1 - np.maximum(votes, total - votes) / total)
        most = votes.max(axis=self.axis)
        return np.asarray(1 - most / self._count(most))

    @property
    def prediction(self) -> Array:
        """The class of the largest mean; for "binary" whether it is over one half; for "regression" the mean."""
        if self.task == "classification":
            return np.asarray(self.mean.argmax(axis=self.axis))
        return self.mean > 0.5 if self.task == "binary" else self.mean

    def available(self) -> list[str]:
        """Return the names of the statistics that the sums give."""
        found = ["mean"]
        found += ["variance", "std", "epistemic"] if "squares" in self.sums else []
        found += ["aleatoric"] if "noise" in self.sums else []
        if self.task == "regression":
            return found
        found += ["prediction", "entropy"]
        found += ["mutual_information", "expected_entropy"] if "divergence" in self.sums else []
        return found + (["variation_ratio"] if "votes" in self.sums else [])

    def quantiles(self, q: float | Sequence[float]) -> Array:
        """Return quantiles of the draws.

        Args:
            q: in [0, 1]; one, or several.

        Returns:
            The shape of ``q``, then that of the output.

        Raises:
            SpecError: the draws were not kept.
        """
        if self.draws is None:
            raise SpecError(f"output {self.name!r}: its draws were not kept; predict(..., draws=True) keeps them")
        return np.asarray(np.quantile(self.draws, np.asarray(q, np.float64), axis=0))

    def _sum(self, key: str, statistic: str) -> Array:
        if key not in self.sums:
            raise SpecError(f"output {self.name!r}: ask for it: MCDropout(..., statistics=[{statistic!r}, ...])")
        return self.sums[key]

    def _count(self, like: Array) -> Array:
        return self.samples.reshape(-1, *([1] * (like.ndim - 1))).astype(np.float64)

    def _need_classes(self, what: str) -> None:
        if self.task == "regression":
            raise SpecError(
                f"output {self.name!r} is regression, which has no {what}; task='classification' says otherwise"
            )


@dataclass(frozen=True, repr=False)
class MCResult(Mapping[str, Statistics]):
    """What MCDropout.predict gives: a mapping from outputs to statistics, and those of the first one as attributes.

    Attributes:
        outputs: the statistics of each output that differs from draw to draw.
        fixed: the other outputs.
        ids: the id of each row, int64 [N].
    """

    outputs: dict[str, Statistics]
    fixed: dict[str, Array] = field(default_factory=dict)
    ids: Array = field(default_factory=lambda: np.zeros(0, np.int64))

    def __repr__(self) -> str:
        """The statistics of each output, a line each."""
        return f"MCResult({len(self.ids)} rows:\n  " + "\n  ".join(map(repr, self.outputs.values())) + ")"

    def __getitem__(self, name: str) -> Statistics:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def first(self) -> Statistics:
        """The statistics of the first output."""
        return next(iter(self.outputs.values()))

    @property
    def task(self) -> str:
        """See Statistics."""
        return self.first.task

    @property
    def samples(self) -> Array:
        """See Statistics."""
        return self.first.samples

    @property
    def mean(self) -> Array:
        """See Statistics."""
        return self.first.mean

    @property
    def variance(self) -> Array:
        """See Statistics."""
        return self.first.variance

    @property
    def std(self) -> Array:
        """See Statistics."""
        return self.first.std

    @property
    def entropy(self) -> Array:
        """See Statistics."""
        return self.first.entropy

    @property
    def expected_entropy(self) -> Array:
        """See Statistics."""
        return self.first.expected_entropy

    @property
    def mutual_information(self) -> Array:
        """See Statistics."""
        return self.first.mutual_information

    @property
    def variation_ratio(self) -> Array:
        """See Statistics."""
        return self.first.variation_ratio

    @property
    def aleatoric(self) -> Array:
        """See Statistics."""
        return self.first.aleatoric

    @property
    def epistemic(self) -> Array:
        """See Statistics."""
        return self.first.epistemic

    @property
    def prediction(self) -> Array:
        """See Statistics."""
        return self.first.prediction

    @property
    def draws(self) -> Array | None:
        """See Statistics."""
        return self.first.draws

    def quantiles(self, q: float | Sequence[float]) -> Array:
        """See Statistics."""
        return self.first.quantiles(q)
