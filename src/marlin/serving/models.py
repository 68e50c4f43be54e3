"""Transformer models: sizes that follow from the published architecture."""

from __future__ import annotations

from dataclasses import dataclass

from marlin.errors import UserError

# Bytes per weight of the linear layers by quantisation; embeddings and output head stay in BF16.
WEIGHT_BYTES = {"bfloat16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "nvfp4": 0.5625}
KV_BYTES = {"bfloat16": 2, "fp8": 1}


@dataclass(frozen=True)
class Model:
    """A decoder with grouped-query attention and a gated MLP (model card values).

    `path` is the package's name of it; where that is empty the package is given the sizes.
    `experts` MLPs stand side by side, of which a token passes `active_experts`.
    """

    name: str
    path: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    experts: int = 1
    active_experts: int = 1

    def _linear(self, experts: int) -> int:
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        router = self.hidden * self.experts if self.experts > 1 else 0
        return self.layers * (attention + router + experts * 3 * self.hidden * self.intermediate)

    @property
    def linear_parameters(self) -> int:
        """Weights of all projections, routers and MLPs."""
        return self._linear(self.experts)

    @property
    def parameters(self) -> int:
        """All weights: projections, norms, embedding and output head."""
        norms = (2 * self.layers + 1) * self.hidden
        return self.linear_parameters + norms + 2 * self.vocabulary * self.hidden

    @property
    def active_parameters(self) -> int:
        """Weights that a token passes: all of a dense model, the chosen experts of another."""
        return self.parameters - self.linear_parameters + self._linear(self.active_experts)

    def card(self) -> dict[str, object]:
        """The sizes as the configuration file of the model's family."""
        sizes = {
            "hidden_act": "silu", "hidden_size": self.hidden, "head_dim": self.head_dim,
            "intermediate_size": self.intermediate, "max_position_embeddings": 131072,
            "num_attention_heads": self.heads, "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads, "torch_dtype": "bfloat16",
            "vocab_size": self.vocabulary,
        }  # fmt: skip
        if self.experts > 1:
            return sizes | {
                "architectures": ["MixtralForCausalLM"],
                "model_type": "mixtral",
                "num_experts_per_tok": self.active_experts,
                "num_local_experts": self.experts,
            }
        return sizes | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}

    def weights_bytes(self, precision: str = "bfloat16") -> float:
        """Bytes of all weights when the linear layers are held in `precision`."""
        rest = self.parameters - self.linear_parameters
        return self.linear_parameters * WEIGHT_BYTES[precision] + rest * WEIGHT_BYTES["bfloat16"]

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of a BF16 KV cache of one token over all layers and GPUs."""
        return 2 * self.layers * self.kv_heads * self.head_dim * KV_BYTES["bfloat16"]


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
        Model("mixtral-8x7b", "",
              32, 4096, 14336, 32, 8, 128, 32000, experts=8, active_experts=2),
    )
}  # fmt: skip


def model(name: str) -> Model:
    """The model of that name; `UserError` names the known ones."""
    if name not in MODELS:
        raise UserError(
            f"serving: unknown model {name!r}; known: {', '.join(MODELS)} "
            "(add its sizes as `card` in serving.models)"
        )
    return MODELS[name]
