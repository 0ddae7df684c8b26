from lora_assets.remote.log import event


def test_a_gate_is_printed_with_its_numbers() -> None:
    gate = event(
        {
            "kind": "AssetCheckEvaluationEvent",
            "step": "adapter_quality_gate",
            "message": "",
            "level": "DEBUG",
            "evaluation": {
                "name": "quality_gate",
                "passed": False,
                "description": "eval_loss 2 (must be <= 1)",
                "assetKey": {"path": ["adapter"]},
                "metadataEntries": [{"label": "digest", "value": "d" * 64}, {"label": "checks"}],
            },
        }
    )
    assert gate.shown == f"  {'adapter_quality_gate':<30} FAILED: eval_loss 2 (must be <= 1)"
    assert (gate.asset, dict(gate.metadata)) == ("adapter", {"digest": "d" * 64})


def test_an_error_is_told_by_its_cause_without_a_trace_and_not_as_progress() -> None:
    cause = {"class_name": "KeyError", "message": "KeyError: 'a'\n"}
    failed = event(
        {
            "kind": "ExecutionStepFailureEvent",
            "step": "adapter",
            "message": "failed",
            "level": "ERROR",
            "error": {"class_name": "Wrapped", "message": "Error occurred", "cause": cause},
        }
    )
    assert failed.shown is None
    assert failed.error is not None
    assert failed.error.reason == "adapter: KeyError: 'a'"


def test_what_the_code_logs_is_printed_but_for_what_dagster_says_after_an_error() -> None:
    logged = {"kind": "LogMessageEvent", "step": None, "message": "read 8 rows"}
    assert event({**logged, "level": "INFO"}).shown == f"  {'':<30} read 8 rows"
    assert event({**logged, "level": "ERROR"}).shown is None
    assert event({**logged, "kind": "EngineEvent", "level": "INFO"}).shown is None
