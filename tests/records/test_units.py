import pytest

from lora_assets.records.units import unit_of


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("p95_latency vs baseline", "s"),
        ("slowest answer of http://throughput:8000", "s"),
        ("non-empty answers of http://ttft:8000", ""),
        ("ratio of p95_ttft to live, upper limit", ""),
        ("throughput", "requests/s"),
        ("a_rate of data version 1 vs live, lower limit", "share"),
        ("left out of val", "share"),
        ("perplexity", ""),
    ],
)
def test_a_number_has_the_unit_of_what_it_measures_and_of_nothing_else(
    name: str, unit: str
) -> None:
    assert unit_of(name) == unit
