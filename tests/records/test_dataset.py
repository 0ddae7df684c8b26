from lora_assets.records.dataset import version_order


def test_versions_are_ordered_as_people_count() -> None:
    ordered = ["1", "2", "10", "2026-9-1", "2026-11-01", "v2", "v10"]
    assert sorted(reversed(ordered), key=version_order) == ordered
