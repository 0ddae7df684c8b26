import pytest

from lora_assets.records.dataset import older_by_name, version_order


def test_versions_are_ordered_as_people_count() -> None:
    ordered = ["1", "1.0-rc1", "1.0", "2", "10", "2026-9-1", "2026-11-01", "v2", "v10"]
    assert sorted(reversed(ordered), key=version_order) == ordered


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        *((name, name, False) for name in ("1", "a1b2c3")),
        *((older, newer, True) for older, newer in (("2", "10"), ("v9", "v10"), ("1.0", "1.0.1"))),
        ("2026-9", "2026-11-baseline", True),
        ("20260101-a", "20260102-a", True),
        *((f"1.0-{before}", "1.0", True) for before in ("rc1", "RC", "alpha.2", "dev")),
        ("1.0-rc2", "1.0-rc10", True),
        ("1.0-beta3", "1.0rc1", True),
        ("1.0-rc1", "1", True),
        ("1.0-rc1", "0.9", False),
        # The names don't say.
        *((one, other, None) for one, other in (("a1b2c3", "2"), ("a1b2c3", "b2c3d4"))),
        *((one, other, None) for one, other in (("3f2a91c", "4"), ("v2", "3"), ("1.0", "1.0.0"))),
        *(
            ("2026-01-baseline", other, None)
            for other in ("baseline", "2", "2026-01", "2026-01-15")
        ),
        ("2026-01", "20260115", None),
    ],
)
def test_a_name_tells_which_is_older_only_where_both_count_alike(
    one: str, other: str, expected: bool | None
) -> None:
    assert older_by_name(one, other) is expected
    if one != other:
        assert older_by_name(other, one) is (None if expected is None else not expected)
