from collections.abc import Mapping

import pytest

from lora_assets.records.served import Served
from lora_assets.serving.drift import Drift, drifts
from tests.support.records import model_version

LIVE, CANDIDATE = "live-slot", "candidate-slot"
ONE, TWO, THREE, FOUR = (model_version(number, digest=str(number) * 64) for number in range(1, 5))
ALIASES = {"previous": ONE, "live": TWO, "staged": THREE, "eval-passed": FOUR}
WHOLE = {
    **{each.serving_name: each.digest for each in (ONE, TWO, THREE)},
    LIVE: TWO.digest,
    CANDIDATE: THREE.digest,
}


def replica(adapters: Mapping[str, str], url: str = "http://a", *damaged: str) -> Served:
    return Served(replica=url, adapters=adapters, damaged=damaged)


def found(*replicas: Served) -> tuple[Drift, ...]:
    return drifts(ALIASES, LIVE, CANDIDATE, replicas)


def test_a_replica_that_serves_what_the_aliases_say_has_no_drift() -> None:
    more = replica({**WHOLE, "another": "f" * 64}, "http://b", "f" * 64)
    assert found(replica(WHOLE), more) == ()
    # Another adapter in the candidate slot is a newer candidate.
    assert found(replica({**WHOLE, CANDIDATE: "f" * 64})) == ()


def test_without_aliases_nothing_is_expected() -> None:
    assert drifts({}, LIVE, CANDIDATE, [replica({}), replica(WHOLE)]) == ()


@pytest.mark.parametrize("name", WHOLE)
def test_each_name_that_a_replica_lacks_is_one_difference(name: str) -> None:
    rest = {each: digest for each, digest in WHOLE.items() if each != name}
    told = found(replica(rest, "http://b"), replica(WHOLE), replica(rest, "http://c"))
    assert told == tuple(
        Drift(replica=url, name=name, expected=WHOLE[name], found=None)
        for url in ("http://b", "http://c")
    )
    assert str(told[0]) == f"http://b serves nothing as {name}, expected {WHOLE[name][:12]}"


@pytest.mark.parametrize("name", [LIVE, ONE.serving_name, TWO.serving_name, THREE.serving_name])
def test_another_adapter_under_a_name_is_a_difference(name: str) -> None:
    (only,) = found(replica({**WHOLE, name: "f" * 64}))
    assert str(only) == f"http://a serves {'f' * 12} as {name}, expected {WHOLE[name][:12]}"


def test_a_damaged_adapter_counts_as_not_served_wherever_it_is_named() -> None:
    damaged = found(replica(WHOLE, "http://a", TWO.digest))
    assert {(each.name, each.found) for each in damaged} == {(TWO.serving_name, None), (LIVE, None)}
    newer = replica({**WHOLE, CANDIDATE: "f" * 64}, "http://a", "f" * 64)
    assert [each.name for each in found(newer)] == [CANDIDATE]


def test_one_adapter_may_be_live_and_staged_at_once() -> None:
    same = {"live": TWO, "staged": TWO}
    served = {TWO.serving_name: TWO.digest, LIVE: TWO.digest, CANDIDATE: TWO.digest}
    assert drifts(same, LIVE, CANDIDATE, [replica(served)]) == ()
    names = [each.name for each in drifts(same, LIVE, CANDIDATE, [replica({})])]
    assert sorted(names) == sorted(served)


@pytest.mark.parametrize("name", [LIVE, CANDIDATE, TWO.serving_name])
def test_the_right_digest_from_another_place_is_a_difference_that_shows_the_whole_path(
    name: str,
) -> None:
    digest = WHOLE[name]
    served = replica({**WHOLE, name: f"attacker/{digest}"})
    assert served.strangers == (f"http://a serves {name} from attacker/{digest}",)
    (only,) = found(served)
    assert str(only) == f"http://a serves attacker/{digest} as {name}, expected {digest[:12]}"
