"""Dense transformer models: sizes that follow from the published architecture."""

from __future__ import annotations

from dataclasses import dataclass

from marlin.errors import UserError

# Bytes per weight of the linear layers by quantisation; embeddings and output head stay in BF16.
WEIGHT_BYTES = {"bfloat16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "nvfp4": 0.5625}
KV_BYTES = 2  # BF16 cache


@dataclass(frozen=True)
class Model:
    """A decoder with grouped-query attention and a gated MLP (model card values)."""

    name: str
    path: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int

    @property
    def linear_parameters(self) -> int:
        """Weights of all projections and MLPs."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def parameters(self) -> int:
        """All weights: projections, norms, embedding and output head."""
        norms = (2 * self.layers + 1) * self.hidden
        return self.linear_parameters + norms + 2 * self.vocabulary * self.hidden

    def weights_bytes(self, precision: str = "bfloat16") -> float:
        """Bytes of all weights when the linear layers are held in `precision`."""
        rest = self.parameters - self.linear_parameters
        return self.linear_parameters * WEIGHT_BYTES[precision] + rest * WEIGHT_BYTES["bfloat16"]

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache of one token over all layers and GPUs."""
        return 2 * self.layers * self.kv_heads * self.head_dim * KV_BYTES


MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        Model("llama-3.1-8b", "meta-llama/Meta-Llama-3.1-8B",
              32, 4096, 14336, 32, 8, 128, 128256),
        Model("llama-3.1-70b", "meta-llama/Meta-Llama-3.1-70B",
              80, 8192, 28672, 64, 8, 128, 128256),
        Model("llama-3.1-405b", "meta-llama/Meta-Llama-3.1-405B",
              126, 16384, 53248, 128, 8, 128, 128256),
        Model("qwen3-32b", "Qwen/Qwen3-32B",
              64, 5120, 25600, 64, 8, 128, 151936),
    )
}  # fmt: skip


def model(name: str) -> Model:
    """The model of that name; `UserError` names the known ones."""
    if name not in MODELS:
        raise UserError(
            f"serving: unknown model {name!r}; known: {', '.join(MODELS)} "
            "(add one in src/marlin/serving/models.py)"
        )
    return MODELS[name]
