import hashlib
import re

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.evaluation import EvalThresholds
from lora_assets.gates.performance import PerfThresholds
from lora_assets.gates.policy import SPECIFICATION, THRESHOLDS, Policy, parse_policy
from lora_assets.gates.policy import reasons_of_policy as reasons
from lora_assets.gates.promotion import required_gates
from lora_assets.records import Record
from lora_assets.records.verdict import GateName, Rule, Verdict
from tests.support.records import NOW, model_version, passed_verdict

CONTENT = b"""
decision-rule: paired
a-margin: 0.05
min-a-rate: 0.6
max-eval-loss: 1e1
num-epochs: 2
learning-rate: 1e-4
promotion: automatic
max-evidence-age: 7
"""
GATES = [gate.name for gate in required_gates("staged")]


def verdicts(
    *strict: Record, rule: Rule = "specification", at: str = NOW
) -> dict[GateName, Verdict]:
    """Passed verdicts, made with these thresholds and else with the specification's."""
    given: dict[type[Record], Record] = {type(each): each for each in strict}
    made = {}
    for gate in GATES:
        kind = THRESHOLDS[gate]
        limits = given.get(kind, kind()).model_dump(exclude={"decision_rule"})
        made[gate] = passed_verdict(gate, model_version(), None, thresholds=limits, decided_at=at)
    for gate in ("eval_gate", "perf_gate"):
        made[gate] = made[gate].model_copy(update={"rule": rule})
    return made


def test_a_policy_is_what_its_file_says_and_else_the_specification() -> None:
    policy = parse_policy(CONTENT)
    assert (policy.decision_rule, policy.a_margin, policy.max_eval_loss) == ("paired", 0.05, 10.0)
    assert (policy.c_margin, policy.max_perplexity) == (0.02, 2.0)
    assert (policy.promotion, policy.max_evidence_age) == ("automatic", 7)
    assert policy.digest == hashlib.sha256(CONTENT).hexdigest()
    assert SPECIFICATION.digest is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"min-arate: 0.7", "The policy has an unknown key: min-arate. Use the names"),
        (b"digest: abc", "The policy has an unknown key: digest"),
        (b"a-margin: 0", "The policy's a-margin is not possible .Input should be greater than 0"),
        (b"c-margin: 1", "The policy's c-margin is not possible .Input should be less than 1"),
        (b"max-eval-loss: .nan", "The policy's max-eval-loss is not possible"),
        (b"num-epochs: 0", "The policy's num-epochs is not possible"),
        (b"promotion: maybe", "The policy's promotion is not possible"),
        (b"max-evidence-age: 0", "The policy's max-evidence-age is not possible"),
        (b"judges: [http://judge:8000]", "The policy's judges is not possible"),
        (b"servers: http://vllm:8000", "The policy's servers is not possible"),
        (b"a-margin: 0.01\na-margin: 0.9", "The policy has a-margin 2 times"),
        (b"a-margin: 0.01\na_margin: 0.9", "The policy has a-margin 2 times"),
        (b"", "The policy has no keys"),
        (b"- a", "The policy has no keys"),
        (b"a: [", "The policy is not valid YAML: while parsing"),
        (b"\xff\xfe\xff", "The policy is not valid YAML"),
        (b"max-evidence-age: 2026-02-30", "The policy is not valid YAML: day is out of range"),
        (b"a: " + b"[" * 5000, "The policy is not valid YAML"),
        (b"max-leak: yes", "The policy's max-leak can't be yes or no"),
        (b"num-epochs: on", "The policy's num-epochs can't be yes or no"),
        (b"judges: {http://a/: b, http://a: c}", "The policy's judges has http://a 2 times"),
    ],
)
def test_what_a_policy_can_not_be_is_refused_by_name(content: bytes, message: str) -> None:
    with pytest.raises(LoraAssetsError, match=f"^{message}") as refused:
        parse_policy(content)
    assert "\n" not in str(refused.value)


def test_a_run_is_configured_with_what_the_file_sets_and_nothing_else() -> None:
    policy = parse_policy(CONTENT)
    assert policy.ops(["adapter", "eval_grades"]) == {
        "adapter": {"num_epochs": 2, "learning_rate": 1e-4},
        "adapter_quality_gate": {"max_eval_loss": 10.0},
        "eval_grades": {"a_margin": 0.05, "decision_rule": "paired"},
        "eval_grades_eval_gate": {"a_margin": 0.05, "decision_rule": "paired", "min_a_rate": 0.6},
    }
    assert policy.ops(["perf_metrics"]) == {
        "perf_metrics": {"decision_rule": "paired"},
        "perf_metrics_perf_gate": {"decision_rule": "paired"},
    }
    assert policy.ops(["live_deployment"]) == {}
    assert SPECIFICATION.ops(["adapter", "eval_grades", "perf_metrics"]) == {}


def test_verdicts_made_with_the_policys_limits_or_stricter_ones_are_taken() -> None:
    assert reasons(verdicts(), "staged", SPECIFICATION, NOW) == ()
    strict = (EvalThresholds(min_a_rate=0.9), PerfThresholds(latency_regression_factor=1.1))
    assert reasons(verdicts(*strict), "staged", SPECIFICATION, NOW) == ()
    assert reasons({}, "staged", SPECIFICATION, NOW) == ()


@pytest.mark.parametrize(
    ("lax", "reason"),
    [
        (EvalThresholds(min_a_rate=0.1), "eval_gate was made with min-a-rate 0.1, .* for 0.7"),
        (EvalThresholds(max_c_rate=0.9), "eval_gate was made with max-c-rate 0.9, .* for 0.1"),
        (EvalThresholds(allow_no_negatives=True), "eval_gate .* allow-no-negatives 1, .* for 0"),
        (PerfThresholds(min_throughput=0), "perf_gate .* min-throughput 0, .* for 2"),
        (
            PerfThresholds(throughput_regression_factor=0.3),
            "perf_gate .* throughput-regression-factor 0.3, .* for 0.85",
        ),
    ],
)
def test_a_looser_limit_is_named(lax: Record, reason: str) -> None:
    (found,) = reasons(verdicts(lax), "staged", SPECIFICATION, NOW)
    assert re.fullmatch(reason, found)


def test_another_rule_or_a_wider_margin_than_the_policys_is_named() -> None:
    other = verdicts(rule="paired")
    said = "decided by the rule paired, the policy asks for specification"
    both = (f"eval_gate {said}", f"perf_gate {said}")
    assert reasons(other, "staged", SPECIFICATION, NOW) == both
    paired = Policy(decision_rule="paired")
    assert reasons(other, "staged", paired, NOW) == ()
    wide = verdicts(EvalThresholds(a_margin=0.1, confidence=0.8), rule="paired")
    assert reasons(wide, "staged", paired, NOW) == (
        "eval_gate was made with confidence 0.8, the policy asks for 0.95",
        "eval_gate was made with a-margin 0.1, the policy asks for 0.03",
    )
    # By the specification's rule margins decide nothing.
    loose = verdicts(EvalThresholds(a_margin=0.1))
    assert reasons(loose, "staged", SPECIFICATION, NOW) == ()


def test_with_a_list_of_judges_or_servers_a_verdict_counts_that_rests_on_one_alone() -> None:
    judges = parse_policy(b"judges: {'http://judge:8000/': llama, 'http://small:8000': mistral}")
    listed = "those whose grades count (llama at http://judge:8000, mistral at http://small:8000)"

    def said(policy: Policy, **by: str | None) -> tuple[str, ...]:
        given = {gate: each.model_copy(update=by) for gate, each in verdicts().items()}
        assert reasons(given, "staged", SPECIFICATION, NOW) == ()
        return reasons(given, "staged", policy, NOW)

    assert said(judges, judge_url="http://judge:8000", judge="llama") == ()
    for url in ("http://evil", "http://small:8000"):
        reason = f"eval_gate: the judge llama at {url} is none of {listed}"
        assert said(judges, judge_url=url, judge="llama") == (reason,)
    assert said(judges) == (f"eval_gate: the judge that it does not name is none of {listed}",)

    servers = parse_policy(b"servers: ['http://vllm:8000/']")
    assert said(servers, vllm_url="http://vllm:8000") == ()
    listed = "those whose answers count (http://vllm:8000)"
    for by, named in (("http://evil", "http://evil"), (None, "that it does not name")):
        reason = f"the server {named} is none of {listed}"
        assert said(servers, vllm_url=by) == tuple(f"{gate}: {reason}" for gate in GATES[1:])


def test_a_limit_that_an_older_verdict_lacks_counts_where_the_policy_sets_it() -> None:
    made = verdicts()
    old = made["quality_gate"].model_copy(update={"thresholds": {"max_eval_loss": 1.0}})
    case = {**made, "quality_gate": old}
    assert reasons(case, "staged", SPECIFICATION, NOW) == ()
    said = ("quality_gate was made without max-perplexity, the policy asks for 1.5",)
    assert reasons({"quality_gate": old}, "staged", Policy(max_perplexity=1.5), NOW) == said


def test_what_was_measured_on_the_fleet_ages_and_what_was_trained_does_not() -> None:
    week = Policy(max_evidence_age=7)
    later = "2026-01-09T12:00:00+00:00"
    assert reasons(verdicts(at="2026-01-03T00:00:00+00:00"), "staged", week, later) == ()
    old = reasons(verdicts(), "staged", week, later)
    assert old == tuple(
        f"{gate} is 8.5 days old, the policy allows 7"
        for gate in ("smoke_test", "eval_gate", "perf_gate")
    )
    assert len(reasons(verdicts(), "eval-passed", week, later)) == 2
    assert reasons(verdicts(), "previous", week, later) == ()
