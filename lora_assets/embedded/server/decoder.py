"""The base model's forward pass over the tokens of many rows, each with its own adapter.

Weights and configuration are those that transformers loaded, the arithmetic that of its
MistralForCausalLM (LlamaForCausalLM, Qwen2ForCausalLM). The tokens of all rows lie in one
dimension, without padding; projections that read the same input are fused; the last layer is
computed where its output is wanted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from lora_assets.embedded.server.kv_cache import KVCache, PromptKV
from lora_assets.embedded.server.lora import PARTS, LoraBatch, LoraRows, Site
from lora_assets.errors import LoraAssetsError
from lora_assets.serving.base_shapes import ARCHITECTURES

_TYPICAL_ROWS = 16

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class _Projection:
    """A weight (out, in), laid out for the faster one of torch's libraries for products.

    In fp32 torch uses MKL, which leaves half of a core idle that is not Intel's: one layer's
    products took 1.6 ms for 150 tokens and 0.19 ms for 10, in oneDNN 0.71 and 0.10 ms (an AMD
    EPYC core, torch 2.13). On Intel's own, MKL was the faster one: 0.7 against 1.1 ms for four
    layers and 10 tokens. Public ways do less: mkldnn tensors took 0.97 and 0.25 ms, a
    convolution 2.0 and 0.56 ms, and MKL's environment variables changed nothing.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._bias = bias
        intel = "Intel" in torch.cpu.get_capabilities().get("cpu_name", "")
        self._one_dnn = torch.backends.mkldnn.is_available() and not intel  # type: ignore[no-untyped-call]
        pack = torch.ops.mkldnn._reorder_linear_weight
        self._weight: Tensor = (
            pack(weight.detach(), _TYPICAL_ROWS)
            if self._one_dnn
            else weight.detach().T.contiguous()
        )

    def __call__(self, x: Tensor) -> Tensor:
        if not self._one_dnn:
            y = x @ self._weight
            return y if self._bias is None else y + self._bias
        linear = torch.ops.mkldnn._linear_pointwise
        return cast(Tensor, linear(x, self._weight, self._bias, "none", [], ""))


@dataclass(frozen=True, eq=False)
class _Layer:
    sites: dict[Site, _Projection]
    attention_norm: Tensor
    mlp_norm: Tensor


class Decoder:
    """A model of Mistral's, Llama's or Qwen2's architecture in fp32 on the CPU.

    Raises LoraAssetsError for a folder that holds no such model, and when what it computes
    differs from what transformers computes with the same weights.
    """

    def __init__(self, folder: Path) -> None:
        model = _load(folder)
        config = model.config
        self.max_length: int = config.max_position_embeddings
        self.vocabulary: int = config.vocab_size
        ends = config.eos_token_id
        self.end_tokens: frozenset[int] = frozenset(ends if isinstance(ends, list) else [ends])
        self._heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads
        own_size: int | None = getattr(config, "head_dim", None)
        self._head_size: int = own_size or config.hidden_size // self._heads
        self._eps: float = config.rms_norm_eps
        self._embedding: Tensor = model.model.embed_tokens.weight
        self._head = _Projection(model.lm_head.weight)
        self._norm: Tensor = model.model.norm.weight
        self._layers = [_fused(layer) for layer in model.model.layers]
        first = model.model.layers[0]
        self.shapes: dict[str, tuple[int, int]] = {
            part: tuple(first.get_submodule(part).weight.shape)
            for fused in PARTS.values()
            for part in fused
        }
        self._rotations = self._rotation_table(model.model.rotary_emb)
        self._compare_with(model)

    @property
    def layers(self) -> int:
        """Return the number of decoder layers."""
        return len(self._layers)

    def new_cache(self, rows: int) -> KVCache:
        """Return an empty cache for at most `rows` rows."""
        return KVCache(self.layers, rows, self._kv_heads, self._head_size, self.max_length)

    @torch.inference_mode()
    def prefill(
        self, prompts: Sequence[Sequence[int]], lora: LoraRows
    ) -> tuple[Tensor, list[PromptKV]]:
        """Read prompts; return the logits after each, (prompts, vocabulary), and what to cache."""
        lengths = [len(prompt) for prompt in prompts]
        tokens = torch.tensor([token for prompt in prompts for token in prompt])
        positions = torch.cat([torch.arange(length) for length in lengths])
        ends = torch.tensor(lengths).cumsum(0) - 1
        keys: list[tuple[Tensor, ...]] = []
        values: list[tuple[Tensor, ...]] = []

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            last_only = layer == self.layers - 1
            keys.append(torch.split(k, lengths))
            values.append(torch.split(v, lengths))
            attended = []
            for each in zip(torch.split(q, lengths), keys[-1], values[-1], strict=True):
                query, key, value = (part.transpose(0, 1)[None] for part in each)
                if last_only:
                    query = query[:, :, -1:]
                own = F.scaled_dot_product_attention(
                    query, key, value, is_causal=not last_only, enable_gqa=True
                )
                attended.append(own[0].transpose(0, 1))
            return torch.cat(attended).flatten(1)

        logits = self._forward(tokens, positions, attend, lora, ends)
        rows = zip(zip(*keys, strict=True), zip(*values, strict=True), strict=True)
        return logits, [PromptKV(*row) for row in rows]

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int], cache: KVCache, lora: LoraRows) -> Tensor:
        """Take one more token for every row of the cache; return the logits (rows, vocabulary)."""
        positions = torch.tensor(cache.lengths)
        mask = cache.advance()
        # Queries that share a key-value head stand as that head's queries: no repeated keys.
        grouped = (len(tokens), self._kv_heads, self._heads // self._kv_heads, self._head_size)

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = cache.append(layer, k, v)
            own = F.scaled_dot_product_attention(q.reshape(grouped), keys, values, attn_mask=mask)
            return own.reshape(len(tokens), -1)

        return self._forward(torch.tensor(tokens), positions, attend, lora, None)

    def _forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        attend: Attend,
        lora: LoraRows,
        wanted: Tensor | None,
    ) -> Tensor:
        x = self._embedding[tokens]
        cos, sin = self._rotations[:, positions, None]
        rotated = self._heads + self._kv_heads
        for number, layer in enumerate(self._layers):
            normed = self._normed(x, layer.attention_norm)
            heads = self._project("qkv", number, normed, lora).view(len(x), -1, self._head_size)
            turned = _rotate(heads[:, :rotated], cos, sin)
            attended = attend(
                number, turned[:, : self._heads], turned[:, self._heads :], heads[:, rotated:]
            )
            if wanted is not None and number == self.layers - 1:
                x, lora = x[wanted], lora.select(wanted)
            x = x + self._project("o", number, attended, lora)
            normed = self._normed(x, layer.mlp_norm)
            gate, up = self._project("gate_up", number, normed, lora).chunk(2, dim=1)
            x = x + self._project("down", number, F.silu(gate).mul_(up), lora)
        return self._head(self._normed(x, self._norm))

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self._eps)

    def _project(self, site: Site, layer: int, x: Tensor, lora: LoraRows) -> Tensor:
        return lora.add(site, layer, x, self._layers[layer].sites[site](x))

    def _rotation_table(self, rotary: torch.nn.Module) -> Tensor:
        """Return cosines and signed sines of every position: (2, positions, head size)."""
        cos, sin = rotary(self._embedding, torch.arange(self.max_length)[None])
        sin[..., : self._head_size // 2].neg_()
        return torch.cat((cos, sin))

    @torch.inference_mode()
    def _compare_with(self, model: Any) -> None:
        probe = torch.arange(self.vocabulary)[:: max(1, self.vocabulary // 32)][:32]
        beginnings = [probe[: end + 1].tolist() for end in range(len(probe))]
        ours, _ = self.prefill(beginnings, LoraBatch(()).rows([], []))
        gap = float((ours - model(input_ids=probe[None]).logits[0]).abs().max())
        if not gap < 1e-3:
            raise LoraAssetsError(
                f"The embedded server's logits for this base model are wrong by {gap:.2g}",
                "Serve the model with vLLM.",
            )


def _load(folder: Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        window = getattr(config, "sliding_window", None)
        is_whole = window is None or window >= config.max_position_embeddings
        if config.model_type not in ARCHITECTURES or not is_whole:
            kind = config.model_type if is_whole else f"{config.model_type} (sliding window)"
            raise LoraAssetsError(
                f"{folder} holds a {kind} model",
                f"Give one of {', '.join(ARCHITECTURES)} without a sliding window, or serve it "
                "with vLLM.",
            )
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise LoraAssetsError(
            f"There is no base model in {folder}: {str(error).splitlines()[0]}",
            f"Give a folder with a model of {', '.join(ARCHITECTURES)}.",
        ) from None
    return model.eval().requires_grad_(False)


def _fused(layer: Any) -> _Layer:
    sites = {site: _fuse([layer.get_submodule(p) for p in own]) for site, own in PARTS.items()}
    return _Layer(sites, layer.input_layernorm.weight, layer.post_attention_layernorm.weight)


def _fuse(parts: Sequence[Any]) -> _Projection:
    weight = torch.cat([part.weight for part in parts])
    if all(part.bias is None for part in parts):
        return _Projection(weight)
    biases = (torch.zeros(p.out_features) if p.bias is None else p.bias for p in parts)
    return _Projection(weight, torch.cat(list(biases)))


def _rotate(x: Tensor, cos: Tensor, signed_sin: Tensor) -> Tensor:
    """Rotate x (tokens, heads, size) by its positions: arXiv:2104.09864, halves layout."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), signed_sin)
