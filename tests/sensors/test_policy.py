"""What the sensor launches is configured by the deployment's policy."""

from pathlib import Path

import dagster as dg

from lora_assets.lifecycle import STAGES
from tests.support.automated import Automated
from tests.support.policies import write_policy

TRAIN = list(STAGES)[:3]
POLICY = {"num-epochs": 2, "max-eval-loss": 0.5, "min-a-rate": 0.8, "promotion": "manual"}


def test_a_run_has_the_policys_parameters_and_promotion_is_as_it_says(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    # Which the settings would promote automatically.
    automated = Automated(tmp_path, instance, **write_policy(tmp_path, POLICY))
    assert automated.wanted() == {}
    automated.put("1")
    (training,) = automated.tick().run_requests or ()
    assert training.run_config == {
        "ops": {
            "adapter": {"config": {"num_epochs": 2}},
            "adapter_quality_gate": {"config": {"max_eval_loss": 0.5}},
        }
    }
    automated.make("1", *TRAIN)
    (serving,) = automated.tick().run_requests or ()
    assert dg.AssetKey("live_deployment") not in (serving.asset_selection or ())
    assert serving.run_config == {"ops": {"eval_grades_eval_gate": {"config": {"min_a_rate": 0.8}}}}
