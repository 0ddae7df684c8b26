"""The policy: what a deployment demands of an adapter, and of the verdicts that it goes live on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal

import yaml
from pydantic import Field, FiniteFloat, ValidationError

from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.gates.data import DataThresholds
from lora_assets.gates.evaluation import DecisionRule, EvalThresholds
from lora_assets.gates.performance import PerfRule, PerfThresholds
from lora_assets.gates.promotion import required_gates
from lora_assets.gates.quality import QualityThresholds
from lora_assets.gates.smoke import SmokeThresholds
from lora_assets.lifecycle import GATES, STAGES
from lora_assets.records import Record
from lora_assets.records.training import TrainingParameters
from lora_assets.records.verdict import GateName, Verdict

THRESHOLDS: Mapping[GateName, type[Record]] = {
    "quality_gate": QualityThresholds,
    "smoke_test": SmokeThresholds,
    "eval_gate": EvalThresholds,
    "perf_gate": PerfThresholds,
}
_CONFIGURED: Mapping[str, frozenset[str]] = {
    "training_data_data_is_sound": frozenset(DataThresholds.model_fields),
    "adapter": frozenset({*DataThresholds.model_fields, "max_left_out"}),
    "adapter_quality_gate": frozenset(QualityThresholds.model_fields),
    "staged_deployment_smoke_test": frozenset(SmokeThresholds.model_fields),
    "eval_grades": frozenset(DecisionRule.model_fields),
    "eval_grades_eval_gate": frozenset(EvalThresholds.model_fields),
    "perf_metrics": frozenset(PerfRule.model_fields),
    "perf_metrics_perf_gate": frozenset(PerfThresholds.model_fields),
}
"""The ops of the graph that take thresholds, and which."""

_MEASURED_ON_THE_FLEET = {
    stage.gate.name for stage in STAGES.values() if stage.gate and stage.phase == "serve"
}
"""The gates whose verdicts age: what was trained stays as it is."""

Asked = Literal["judge", "server"]

_HIGHER_IS_STRICTER = ("confidence", "throughput_regression_factor")
"""Beside those whose name begins with min_; of all others a lower one is stricter."""


class Policy(DataThresholds, QualityThresholds, SmokeThresholds, EvalThresholds, PerfThresholds):
    """A deployment's thresholds and decision rule; without a file, the specification's.

    `training` holds the training parameters that differ from the stack's, `max_evidence_age` is in
    days, `digest` is a sha256 over the file's bytes (None without a file). `judges` has the model
    of each judge whose grades count, by its URL, `servers` has the URLs of vLLM whose answers and
    load do; where one is empty, those of any do.
    """

    training: Mapping[str, Any] = {}
    promotion: Literal["manual", "automatic"] | None = None
    max_evidence_age: FiniteFloat | None = Field(None, gt=0)
    digest: str | None = None
    judges: Mapping[str, str] = {}
    servers: tuple[str, ...] = ()

    def against(self, kind: Asked, url: str | None, model: str | None = "") -> tuple[str, ...]:
        """Return why the grades of a judge or a server's answers don't count; nothing if they do.

        The model is a judge's, empty before its server was asked.
        """
        servers = dict.fromkeys(self.servers, "")
        given, what = (self.judges, "grades") if kind == "judge" else (servers, "answers")
        listed = {place.rstrip("/"): name for place, name in given.items()}
        if not listed or (url in listed and model in ("", listed[url])):
            return ()
        others = ", ".join(f"{listed[each]} at {each}".removeprefix(" at ") for each in listed)
        named = " at ".join(filter(None, (model, url))) or "that it does not name"
        return (f"the {kind} {named} is none of those whose {what} count ({others})",)

    def require(self, kind: Asked, url: str | None, model: str | None = "") -> None:
        """Raise LoraAssetsError where they don't count."""
        for reason in self.against(kind, url, model):
            raise LoraAssetsError(
                reason, f"Take one of them, or name this one in the policy's {kind}s."
            )

    def ops(self, assets: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return what the file sets for the ops of these assets and of their checks."""
        set_by_file: dict[str, dict[str, Any]] = {}
        for op, names in _CONFIGURED.items():
            own = {name: getattr(self, name) for name in sorted(self.model_fields_set & names)}
            own |= self.training if op == "adapter" else {}
            if own and any(op == asset or op.startswith(f"{asset}_") for asset in assets):
                set_by_file[op] = own
        return set_by_file


SPECIFICATION = Policy()


def parse_policy(content: bytes) -> Policy:
    """Return the policy that a YAML file states, under the names of the command line's options.

    Raise LoraAssetsError for a key that is none or there twice, and for a value that is not
    possible.
    """
    try:
        given, tree = yaml.safe_load(content), yaml.compose(content, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise LoraAssetsError(
            f"The policy is not valid YAML: {reason}", "Correct the file."
        ) from None
    if not isinstance(given, dict) or not given:
        raise LoraAssetsError(
            "The policy has no keys", "Write what it demands, as in 'decision-rule: paired'."
        )
    _refuse_twice("The policy", [str(key.value).replace("_", "-") for key, _ in tree.value])
    for key, below in tree.value:
        if isinstance(below, yaml.MappingNode):
            urls = [str(url.value).rstrip("/") for url, _ in below.value]
            _refuse_twice(f"The policy's {key.value}", urls)
    thresholds: dict[str, Any] = {}
    training: dict[str, Any] = {}
    own = Policy.model_fields.keys() - {"training", "digest"}
    for key, value in given.items():
        name = str(key).replace("-", "_")
        if name not in own and name not in TrainingParameters.model_fields:
            raise LoraAssetsError(
                f"The policy has an unknown key: {key}",
                "Use the names of the command line's options, such as min-a-rate or num-epochs.",
            )
        kind = (Policy if name in own else TrainingParameters).model_fields[name].annotation
        if isinstance(value, bool) and kind is not bool:
            # YAML 1.1 reads yes and on as true, which would be 1.
            raise LoraAssetsError(f"The policy's {key} can't be yes or no", "Correct the file.")
        (thresholds if name in own else training)[name] = value
    try:
        training = TrainingParameters.model_validate(training).model_dump(exclude_unset=True)
        digest = sha256(content).hexdigest()
        return Policy.model_validate({**thresholds, "training": training, "digest": digest})
    except ValidationError as error:
        key, _, reason = validation_line(error).partition(": ")
        raise LoraAssetsError(
            f"The policy's {key.replace('_', '-')} is not possible ({reason})", "Correct the file."
        ) from None


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    for name, times in Counter(names).most_common(1):
        if times > 1:
            raise LoraAssetsError(f"{what} has {name} {times} times", "Keep the one that holds.")


def reasons_of_policy(
    verdicts: Mapping[GateName, Verdict], source_alias: str, policy: Policy, at: str
) -> tuple[str, ...]:
    """Return where the verdicts that a promotion rests on fall short of the policy.

    A missing verdict is not named here. `at` is the time of the promotion, ISO 8601 in UTC.
    """
    own = [verdicts[gate.name] for gate in required_gates(source_alias) if gate.name in verdicts]
    return tuple(reason for verdict in own for reason in _short_of(verdict, policy, at))


def _short_of(verdict: Verdict, policy: Policy, at: str) -> Sequence[str]:
    gate, reasons = verdict.gate, []
    if GATES[gate].compares_with_live and verdict.rule != policy.decision_rule:
        reasons.append(
            f"{gate} decided by the rule {verdict.rule}, the policy asks for {policy.decision_rule}"
        )
    measured = gate in _MEASURED_ON_THE_FLEET
    against = policy.against("server", verdict.vllm_url) if measured else ()
    if gate == "eval_gate":
        against += policy.against("judge", verdict.judge_url, verdict.judge)
    reasons += [f"{gate}: {why}" for why in against]
    unused = {"decision_rule"}
    if policy.decision_rule == "specification":
        unused |= DecisionRule.model_fields.keys()
    names = [*THRESHOLDS[gate].model_fields, *(["max_leak"] if gate == "quality_gate" else [])]
    for name in (each for each in names if each not in unused):
        wanted, option = getattr(policy, name), name.replace("_", "-")
        if name in verdict.thresholds:
            used = verdict.thresholds[name]
            if _is_looser(name, used, wanted):
                reasons.append(
                    f"{gate} was made with {option} {used:g}, the policy asks for {wanted:g}"
                )
        elif name in policy.model_fields_set:
            # A verdict of an earlier release; what only the specification says, it kept to.
            reasons.append(f"{gate} was made without {option}, the policy asks for {wanted:g}")
    if policy.max_evidence_age is not None and measured:
        age = datetime.fromisoformat(at) - datetime.fromisoformat(verdict.decided_at)
        days = age.total_seconds() / 86400
        if days > policy.max_evidence_age:
            reasons.append(
                f"{gate} is {days:.1f} days old, the policy allows {policy.max_evidence_age:g}"
            )
    return reasons


def _is_looser(name: str, used: float, wanted: float) -> bool:
    if name.startswith("min_") or name in _HIGHER_IS_STRICTER:
        return used < wanted
    return used > wanted
