"""Statistics of draws as nodes: mean, sum of squares, divergence and votes of a few draws, merged into running ones.

Formulas: means and sums of squares by Chan, Golub and LeVeque (1979), "Updating formulae and a pairwise algorithm for
computing sample variances". The mutual information is the mean of KL(p_t || mean), after Houlsby et al. (2011),
"Bayesian active learning for classification and preference learning": no term of it is negative. Two groups of draws
merge by the same identity as sums of squares do: KL to the common mean is KL to their own and KL of these to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx_ir as ir

from onnx_spatialdrop.graph.build import NodeBuilder
from onnx_spatialdrop.montecarlo.tasks import Target

__all__ = ["Accumulator", "Draws"]

_TINY: Final = 1e-30
State = dict[str, ir.Value]


@dataclass(frozen=True)
class Draws:
    """Draws of one output as [draws, N, ...].

    Attributes:
        p: probabilities, or values.
        log_p: their logarithms, of probabilities of classes only.
    """

    p: ir.Value
    log_p: ir.Value | None = None


class Accumulator:
    """Builds the nodes for one output, into one graph.

    Attributes:
        keys: what is carried from group to group: "mean", "squares", "divergence", "votes", "noise".
    """

    def __init__(self, target: Target, build: NodeBuilder, opset: int, double: bool = False) -> None:
        self.target = target
        self._b = build
        self._opset = opset
        self._dtype = ir.DataType.DOUBLE if double else ir.DataType.FLOAT
        wanted = set(target.statistics)
        self.keys = ["mean"]
        if wanted & {"variance", "std", "epistemic"}:
            self.keys.append("squares")
        if wanted & {"mutual_information", "expected_entropy"}:
            self.keys.append("divergence")
        if "variation_ratio" in wanted:
            self.keys.append("votes")
        if target.log_variance is not None:
            self.keys.append("noise")

    # -- one group of draws

    def draws(self, y: ir.Value, count: ir.Value) -> Draws:
        """Return an output of [count * N, ...] as draws; logits become probabilities."""
        b, role = self._b, self._role
        y = b.add("Cast", y, role=role("float"), to=int(self._dtype))
        if self.target.given == "values":
            return Draws(self._grid(y, count, "values"))
        if self.target.task == "binary":
            p = y if self.target.given == "probabilities" else b.add("Sigmoid", y, role=role("p"))
            return Draws(self._grid(p, count, "p_draws"))
        if self.target.given == "probabilities":
            p, log_p = y, self._log(y, "log_p")
        elif self.target.given == "log_probabilities":
            p, log_p = b.add("Exp", y, role=role("p")), y
        else:
            p, log_p = self._softmax(y)
        return Draws(self._grid(p, count, "p_draws"), self._grid(log_p, count, "log_p_draws"))

    def group(self, draws: Draws, log_variance: ir.Value | None, count: ir.Value) -> State:
        """Return the state of ``count`` draws alone."""
        b, role = self._b, self._role
        mean = self._reduce("ReduceMean", draws.p, (0,), "group_mean")
        state = {"mean": mean}
        if "squares" in self.keys:
            away = b.add("Sub", draws.p, mean, role=role("away"))
            square = b.add("Mul", away, away, role=role("square"))
            state["squares"] = self._reduce("ReduceSum", square, (0,), "group_squares")
        if "divergence" in self.keys:
            each = self._divergence(draws.p, mean, "each", draws.log_p)
            state["divergence"] = self._reduce("ReduceSum", each, (0,), "group_divergence")
        if "votes" in self.keys:
            state["votes"] = self._reduce("ReduceSum", self._votes(draws.p), (0,), "group_votes")
        if "noise" in self.keys:
            assert log_variance is not None
            cast = b.add("Cast", log_variance, role=role("log_variance"), to=int(self._dtype))
            noise = b.add("Exp", self._grid(cast, count, "log_variance_draws"), role=role("noise_each"))
            state["noise"] = self._reduce("ReduceMean", noise, (0,), "group_noise")
        return state

    def merge(self, old: State, new: State, done: ir.Value, count: ir.Value) -> State:
        """Return the state of ``done`` draws and ``count`` further ones (floats of shape [1])."""
        b, role = self._b, self._role
        total = b.add("Add", done, count, role=role("total"))
        share = b.add("Div", count, total, role=role("share"))
        gap = b.add("Sub", new["mean"], old["mean"], role=role("gap"))
        mean = b.add("Add", old["mean"], b.add("Mul", gap, share, role=role("move")), role=role("mean"))
        state = {"mean": mean}
        if "squares" in self.keys:
            weight = b.add("Mul", done, share, role=role("weight"))
            between = b.add("Mul", b.add("Mul", gap, gap, role=role("gap2")), weight, role=role("between"))
            sums = b.add("Add", old["squares"], new["squares"], role=role("within"))
            state["squares"] = b.add("Add", sums, between, role=role("squares"))
        if "divergence" in self.keys:
            first = b.add("Mul", self._divergence(old["mean"], mean, "old"), done, role=role("of_old"))
            second = b.add("Mul", self._divergence(new["mean"], mean, "new"), count, role=role("of_new"))
            sums = b.add("Add", old["divergence"], new["divergence"], role=role("divergence_within"))
            sums = b.add("Add", sums, first, role=role("divergence_first"))
            state["divergence"] = b.add("Add", sums, second, role=role("divergence"))
        if "votes" in self.keys:
            state["votes"] = b.add("Add", old["votes"], new["votes"], role=role("votes"))
        if "noise" in self.keys:
            drift = b.add("Sub", new["noise"], old["noise"], role=role("drift"))
            state["noise"] = b.add(
                "Add", old["noise"], b.add("Mul", drift, share, role=role("step")), role=role("noise")
            )
        return state

    # -- the end

    def finish(self, state: State, total: ir.Value) -> dict[str, ir.Value]:
        """Return the statistics of ``total`` draws (a float of shape [1]), by name."""
        b, role = self._b, self._role
        made: dict[str, ir.Value] = {"mean": state["mean"]}
        if "squares" in state:
            made["epistemic"] = b.add("Div", state["squares"], total, role=role("variance_of_draws"))
            made["variance"] = made["epistemic"]
        if "noise" in state:
            made["aleatoric"] = state["noise"]
            if "epistemic" in made:
                made["variance"] = b.add("Add", made["epistemic"], state["noise"], role=role("variance_in_all"))
        if "std" in self.target.statistics:
            made["std"] = b.add("Sqrt", made["variance"], role=role("root"))
        if self.target.kind == "classes":
            self._finish_classes(made, state, total)
        return {name: made[name] for name in self.target.statistics}

    def _finish_classes(self, made: dict[str, ir.Value], state: State, total: ir.Value) -> None:
        b, role, wanted = self._b, self._role, set(self.target.statistics)
        if wanted & {"entropy", "expected_entropy"}:
            made["entropy"] = self._entropy(state["mean"])
        if "divergence" in state:
            made["mutual_information"] = b.add("Div", state["divergence"], total, role=role("information"))
        if "expected_entropy" in wanted:
            rest = b.add("Sub", made["entropy"], made["mutual_information"], role=role("rest"))
            made["expected_entropy"] = b.add("Relu", rest, role=role("expected"))
        if "votes" in state:
            most = self._most(state["votes"], total)
            one = self._float(1.0, "one")
            made["variation_ratio"] = b.add(
                "Sub", one, b.add("Div", most, total, role=role("agree")), role=role("vary")
            )

    def _entropy(self, mean: ir.Value) -> ir.Value:
        b, role = self._b, self._role
        product = b.add("Mul", mean, self._log(mean, "log_mean"), role=role("plogp"))
        if self.target.task == "binary":
            other = b.add("Sub", self._float(1.0, "one_more"), mean, role=role("other"))
            rest = b.add("Mul", other, self._log(other, "log_other"), role=role("qlogq"))
            return b.add("Neg", b.add("Add", product, rest, role=role("both")), role=role("entropy_of_mean"))
        return b.add("Neg", self._over_classes("ReduceSum", product, "sum_plogp"), role=role("entropy_of_mean"))

    # -- pieces

    def _divergence(self, p: ir.Value, mean: ir.Value, name: str, log_p: ir.Value | None = None) -> ir.Value:
        """Return KL(p || mean) without negative numbers that rounding leaves."""
        b, role = self._b, self._role
        log_mean = self._log(mean, f"{name}_log_mean")
        log_p = self._log(p, f"{name}_log") if log_p is None else log_p
        product = b.add("Mul", p, b.add("Sub", log_p, log_mean, role=role(f"{name}_ratio")), role=role(f"{name}_terms"))
        if self.target.task == "binary":
            one = self._float(1.0, f"{name}_one")
            q, rest = (b.add("Sub", one, v, role=role(f"{name}_{k}")) for v, k in ((p, "q"), (mean, "other_mean")))
            logs = [self._log(v, f"{name}_log_{k}") for v, k in ((q, "q"), (rest, "rest"))]
            ratio = b.add("Sub", *logs, role=role(f"{name}_other_ratio"))
            other = b.add("Mul", q, ratio, role=role(f"{name}_other_terms"))
            total = b.add("Add", product, other, role=role(f"{name}_both"))
        else:
            total = self._over_classes("ReduceSum", product, f"{name}_sum", drawn=name == "each")
        return b.add("Relu", total, role=role(f"{name}_divergence"))

    def _softmax(self, y: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return softmax and its logarithm, written out: ONNX Runtime transposes for an inner axis."""
        b, role, axis = self._b, self._role, (self.target.axis,)
        top = self._reduce("ReduceMax", y, axis, "top", 1)
        below = b.add("Sub", y, top, role=role("below"))
        power = b.add("Exp", below, role=role("power"))
        total = self._reduce("ReduceSum", power, axis, "total_power", 1)
        log_p = b.add("Sub", below, b.add("Log", total, role=role("log_total")), role=role("log_p"))
        return b.add("Div", power, total, role=role("p")), log_p

    def _votes(self, p: ir.Value) -> ir.Value:
        b, role = self._b, self._role
        if self.target.task == "binary":
            yes = b.add("Greater", p, self._float(0.5, "half"), role=role("yes"))
            return b.add("Cast", yes, role=role("votes_each"), to=int(self._dtype))
        axis = self.target.axis + 1
        best = b.add("ArgMax", p, role=role("best"), axis=axis, keepdims=0)
        size = self._b.add("Shape", p, role=role("p_shape"))
        depth = b.add("Gather", size, b.constant(np.array([axis], np.int64), role("class_axis")), role=role("classes"))
        off_on = b.constant(np.array([0, 1], self._numpy), role("off_on"))
        return b.add("OneHot", best, depth, off_on, role=role("votes_each"), axis=axis)

    def _most(self, votes: ir.Value, total: ir.Value) -> ir.Value:
        b, role = self._b, self._role
        if self.target.task == "binary":
            return b.add("Max", votes, b.add("Sub", total, votes, role=role("against")), role=role("most"))
        return self._over_classes("ReduceMax", votes, "most")

    def _over_classes(self, op_type: str, value: ir.Value, name: str, drawn: bool = False) -> ir.Value:
        return self._reduce(op_type, value, (self.target.axis + drawn,), name)

    def _log(self, value: ir.Value, name: str) -> ir.Value:
        positive = self._b.add("Max", value, self._float(_TINY, f"{name}_tiny"), role=self._role(f"{name}_positive"))
        return self._b.add("Log", positive, role=self._role(name))

    def _grid(self, value: ir.Value, count: ir.Value, name: str) -> ir.Value:
        """Return [count * N, ...] as [count, N, ...]."""
        b, role = self._b, self._role
        rest = (
            b.add("Shape", value, role=role(f"{name}_rest"), start=1) if self._opset >= 15 else self._rest(value, name)
        )
        open_ = b.constant(np.array([-1], np.int64), role(f"{name}_open"))
        shape = b.add("Concat", count, open_, rest, role=role(f"{name}_shape"), axis=0)
        return b.add("Reshape", value, shape, role=role(name))

    def _rest(self, value: ir.Value, name: str) -> ir.Value:
        b, role = self._b, self._role
        ends = [b.constant(np.array([end], np.int64), role(f"{name}_{end}")) for end in (1, 2**31 - 1)]
        return b.add("Slice", b.add("Shape", value, role=role(f"{name}_all")), *ends, role=role(f"{name}_rest"))

    def _reduce(self, op_type: str, value: ir.Value, axes: tuple[int, ...], name: str, keepdims: int = 0) -> ir.Value:
        if op_type == "ReduceSum" or self._opset >= 18:
            where = self._b.constant(np.array(axes, np.int64), self._role(f"{name}_axes"))
            return self._b.add(op_type, value, where, role=self._role(name), keepdims=keepdims)
        return self._b.add(op_type, value, role=self._role(name), axes=list(axes), keepdims=keepdims)

    @property
    def _numpy(self) -> type[np.floating]:
        return np.float64 if self._dtype == ir.DataType.DOUBLE else np.float32

    def _float(self, number: float, name: str) -> ir.Value:
        return self._b.constant(np.array(number, self._numpy), self._role(name))

    def _role(self, name: str) -> str:
        return f"{self.target.value.name}/{name}"
