"""A short, deterministic stretch of the campaign, in every run of the tests; campaign.py is the long one."""

import random
from pathlib import Path

import pytest
from fuzz import company, contract, mutate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

CONTENTS = [file.read_bytes() for file in company.corpus() if file.stat().st_size < 20_000]
VERBS = (*contract.READING, *contract.REWRITING)


@settings(max_examples=120, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.sampled_from(VERBS))
def test_every_verb_keeps_its_contract_on_broken_models(
    tmp_path_factory: pytest.TempPathFactory, number: int, verb: contract.Verb
) -> None:
    rng = random.Random(number)
    file = tmp_path_factory.mktemp("fuzz") / "model.onnx"
    file.write_bytes(mutate.mutate(rng.choice(CONTENTS), rng))
    with contract.limited(60):
        assert contract.breach(verb, file) == ""


@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200), st.sampled_from(VERBS))
def test_every_verb_keeps_its_contract_on_noise(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, verb: contract.Verb
) -> None:
    file = tmp_path_factory.mktemp("noise") / "model.onnx"
    file.write_bytes(content)
    with contract.limited(60):
        assert contract.breach(verb, file) == ""


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_the_contract_holds_on_a_good_model(tmp_path: Path, verb: contract.Verb) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes((company.ROOT / "models" / "digits_torch.onnx").read_bytes())
    assert contract.breach(verb, file) == ""


@pytest.mark.parametrize("verb", contract.RUNNING, ids=" ".join)
def test_the_contract_holds_for_verbs_that_run_good_models(tmp_path: Path, verb: contract.Verb) -> None:
    folder = company.for_demo() if verb[0] == "demo" else company.good(company.pairs()[0])
    assert contract.breach(verb, company.fill(tmp_path, folder)) == ""


def test_a_breach_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract would be worth nothing if it held of everything."""
    file = tmp_path / "model.onnx"
    file.write_bytes(b"")
    monkeypatch.setattr(contract, "main", lambda _: 0)
    assert "succeeded" in contract.breach(("attach",), file) or "cannot read" in contract.breach(("attach",), file)
    monkeypatch.setattr(contract, "main", lambda _: 1)
    assert "not one line" in contract.breach(("inspect",), file)

    def writes(arguments: list[str]) -> int:
        Path(arguments[1]).write_bytes(b"gone")
        return 0

    monkeypatch.setattr(contract, "main", writes)
    assert "changed other files" in contract.breach(("inspect",), file)


def test_broken_models_follow_from_their_number() -> None:
    first, again = (mutate.mutate(CONTENTS[0], random.Random(5)) for _ in range(2))
    assert first == again
    assert len({mutate.mutate(CONTENTS[0], random.Random(number)) for number in range(20)}) > 15
