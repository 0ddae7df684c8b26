import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_assets.records.served import AdapterShape, ServerLimits
from lora_assets.serving.preflight import MIN_LORAS, obstacles

BASE = {"model.layers.0.self_attn.q_proj": (256, 256), "model.layers.0.mlp.up_proj": (512, 256)}
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank."""


def adapter(**changes: Any) -> AdapterShape:
    shape = AdapterShape(rank=8, base_model="org/base", modules=BASE)
    return shape.model_copy(update=changes)


def server(**changes: Any) -> ServerLimits:
    limits = ServerLimits(base_names=("served", "org/base"), runtime_loading=True, max_loras=3)
    return limits.model_copy(update=changes)


def test_an_adapter_of_the_served_base_or_its_source_that_fits_meets_no_obstacle() -> None:
    assert obstacles(adapter(), server(), 8, BASE) == ()
    assert obstacles(adapter(base_model="served"), server(), 8, None) == ()


WIDE = {"modules": dict.fromkeys([*BASE][:1], (9, 256))}
OBSTACLES = [
    ({"base_model": "org/other"}, {}, "trained on org/other, the server has served"),
    ({}, {"runtime_loading": False}, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
    ({}, {"max_loras": None}, "--enable-lora"),
    ({}, {"max_loras": 2}, "--max-loras 3"),
    ({"rank": 16}, {}, "--max-lora-rank 16"),
    ({"modules": {"lm_head": (9, 9)}}, {}, "lm_head"),
    (WIDE, {}, "q_proj is (256, 256) in the base model and (9, 256) in the adapter"),
]


@pytest.mark.parametrize(("ours", "theirs", "words"), OBSTACLES)
def test_an_obstacle_is_named_with_what_to_change(
    ours: dict[str, Any], theirs: dict[str, Any], words: str
) -> None:
    (only,) = obstacles(adapter(**ours), server(**theirs), 8, BASE)
    assert words in only
    assert "\n" not in only


def test_modules_are_left_to_the_server_where_the_base_model_is_out_of_sight() -> None:
    assert obstacles(adapter(modules={"lm_head": (9, 9)}), server(), 8, None) == ()


def test_every_obstacle_is_named_at_once() -> None:
    unfit = adapter(rank=64, base_model="org/other", modules={"lm_head": (9, 9), **BASE})
    found = obstacles(unfit, server(runtime_loading=False, max_loras=None), 8, BASE)
    flags = ("base model", "RUNTIME_LORA", "--enable-lora", "--max-lora-rank", "lm_head")
    assert len(found) == len(flags)
    assert all(flag in line for flag, line in zip(flags, found, strict=True))


@given(rank=st.integers(1, 600), limit=st.sampled_from(RANKS), places=st.integers(1, 9))
def test_it_fits_exactly_when_rank_and_places_are_within_the_limits(
    rank: int, limit: int, places: int
) -> None:
    found = obstacles(adapter(rank=rank), server(max_loras=places), limit, BASE)
    assert len(found) == (rank > limit) + (places < MIN_LORAS)


@given(rank=st.integers(1, 512), limit=st.sampled_from(RANKS))
def test_the_rank_that_it_asks_for_is_one_that_vllm_takes(rank: int, limit: int) -> None:
    for line in obstacles(adapter(rank=rank), server(), limit, BASE):
        asked = re.search(r"--max-lora-rank (\d+)", line)
        assert asked
        assert int(asked[1]) == min(offered for offered in RANKS if offered >= rank)
