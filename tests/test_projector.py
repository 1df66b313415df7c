"""Projectors: their published shapes, parity with `transformers` on random weights, masks, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from clip_models import randomize
from nunbit.config import from_plain, to_plain
from nunbit.errors import ConfigError, UnsupportedModel, UsageError, WeightsError
from nunbit.pretrained.projector_names import projector_rules
from nunbit.pretrained.weights import fit_tensors
from nunbit.projector import (
    LinearConfig,
    MlpConfig,
    PixelShuffleConfig,
    Projector,
    ProjectorConfig,
    QFormerConfig,
    ResamplerConfig,
    make_projector,
)
from nunbit.projector.maps import pixel_shuffle

TOLERANCE = 1e-5
SMALL = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
BATCH, PATCHES, WIDTH, OUT = 2, 16, 12, 20


def q_former(**changes: Any) -> QFormerConfig:
    return QFormerConfig(**({"num_queries": 5, **SMALL} | changes))


def resampler(**changes: Any) -> ResamplerConfig:
    sizes = {"num_queries": 5, "num_hidden_layers": 2, "num_attention_heads": 3, "head_size": 8}
    return ResamplerConfig(**(sizes | changes))


EVERY: list[ProjectorConfig] = [
    LinearConfig(),
    MlpConfig(),
    PixelShuffleConfig(factor=2),
    PixelShuffleConfig(factor=4, mlp=True, bias=True),
    q_former(),
    q_former(vocab_size=50, max_position_embeddings=8),
    resampler(),
    resampler(block="abstractor", intermediate_size=30, end_token=True),
]
every_kind = pytest.mark.parametrize("config", EVERY, ids=lambda config: str(config.kind))


@dataclass
class Part:
    """Of a larger configuration: the kind says which one it is."""

    projector: ProjectorConfig


def features(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def make(config: ProjectorConfig) -> Projector:
    torch.manual_seed(0)
    projector = make_projector(config, WIDTH, OUT)
    randomize(projector)
    return projector


@every_kind
def test_a_configuration_says_what_comes_out(config: ProjectorConfig) -> None:
    projector = make(config)
    assert (projector.hidden_size, projector.output_size) == (WIDTH, OUT)
    with torch.no_grad():
        tokens = projector(features(BATCH, PATCHES, WIDTH))
        assert tokens.shape == (BATCH, config.num_tokens(PATCHES), OUT)
        assert projector.num_tokens(PATCHES) == config.num_tokens(PATCHES)
        alone = projector(features(BATCH, PATCHES, WIDTH)[1:])
    torch.testing.assert_close(tokens[1:], alone, atol=TOLERANCE, rtol=0)


@every_kind
def test_a_configuration_survives_being_written(config: ProjectorConfig) -> None:
    assert from_plain(Part, to_plain(Part(config))) == Part(config)


@pytest.mark.parametrize(
    ("config", "patches", "hidden_size", "tokens", "output_size", "parameters"),
    [
        (LinearConfig(), 256, 1024, 256, 4096, 1024 * 4096 + 4096),  # LLaVA 1.0
        (MlpConfig(), 576, 1024, 576, 4096, 20_979_712),  # LLaVA 1.5
        (PixelShuffleConfig(factor=4), 1024, 768, 64, 576, 7_077_888),  # SmolVLM-256M
        (PixelShuffleConfig(factor=2), 196, 768, 49, 576, 3_072 * 576),  # nanoVLM 222M
        (QFormerConfig(), 257, 1408, 32, 2560, 32 * 768 + 105_137_664 + 768 * 2560 + 2560),  # BLIP-2 OPT-2.7B
        (ResamplerConfig(block="abstractor", intermediate_size=2816, end_token=True), 257, 1024, 65, 4096, None),
    ],
    ids=["llava", "llava-1.5", "smolvlm-256m", "nanovlm", "blip-2", "mplug-owl"],
)
def test_published_shapes(
    config: ProjectorConfig, patches: int, hidden_size: int, tokens: int, output_size: int, parameters: int | None
) -> None:
    assert config.num_tokens(patches) == tokens
    with torch.device("meta"):
        projector = make_projector(config, hidden_size, output_size)
        assert projector(torch.zeros(1, patches, hidden_size)).shape == (1, tokens, output_size)
    if parameters is not None:
        assert sum(parameter.numel() for parameter in projector.parameters()) == parameters


def test_a_square_of_patches_is_read_row_by_row() -> None:
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    grid = torch.stack([rows, columns], -1).flatten(0, 1)[None]  # (1, 16, 2): every patch says where it is
    second = pixel_shuffle(grid, 2)[0, 1]  # the upper right square
    assert second.tolist() == [0, 2, 0, 3, 1, 2, 1, 3]


def load(config: ProjectorConfig, theirs: nn.Module, hidden_size: int, output_size: int) -> Projector:
    """Our projector with the weights of a module whose parts are called as in the composed model."""
    projector = make_projector(config, hidden_size, output_size)
    state = fit_tensors(theirs.state_dict(), projector, projector_rules(config), where="reference")
    projector.load_state_dict(state)
    return projector.eval()


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert theirs.std() > 0.05  # nothing is proved by zeros
    torch.testing.assert_close(ours, theirs, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_llava_as_in_transformers() -> None:
    llava = pytest.importorskip("transformers.models.llava.modeling_llava")
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=WIDTH),
        text_config=LlamaConfig(hidden_size=OUT, num_attention_heads=2),
    )
    reference = nn.ModuleDict({"multi_modal_projector": llava.LlavaMultiModalProjector(config)})
    randomize(reference)
    x = 3 * features(BATCH, PATCHES, WIDTH)
    assert_same(load(MlpConfig(), reference, WIDTH, OUT)(x), reference["multi_modal_projector"](x))


@pytest.mark.parametrize("family", ["Idefics3", "SmolVLM"])
@torch.no_grad()
def test_pixel_shuffle_as_in_transformers(family: str) -> None:
    transformers = pytest.importorskip("transformers")
    module = pytest.importorskip(f"transformers.models.{family.lower()}.modeling_{family.lower()}")

    vision = {"hidden_size": WIDTH, "num_attention_heads": 2}
    config = getattr(transformers, f"{family}Config")(
        vision_config=vision,
        text_config={"model_type": "llama", "hidden_size": OUT, "num_attention_heads": 2},
        scale_factor=3,
    )
    reference = nn.ModuleDict({"connector": getattr(module, f"{family}Connector")(config)})
    randomize(reference)
    x = features(BATCH, 36, WIDTH)
    ours = load(PixelShuffleConfig(factor=3), reference, WIDTH, OUT)(x)
    assert ours.shape == (BATCH, 4, OUT)
    assert_same(ours, reference["connector"](x))


class Reference(nn.Module):
    """The parts that BLIP-2 and InstructBLIP have between their eye and their language model."""

    def __init__(self, qformer: nn.Module, config: QFormerConfig) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_queries, config.hidden_size))
        self.qformer = qformer
        self.language_projection = nn.Linear(config.hidden_size, OUT)


@pytest.mark.parametrize("every", [1, 2])
@torch.no_grad()
def test_blip_2_as_in_transformers(every: int) -> None:
    transformers = pytest.importorskip("transformers")
    config = q_former(cross_attention_frequency=every)
    theirs = transformers.Blip2QFormerConfig(
        **SMALL, cross_attention_frequency=every, encoder_hidden_size=WIDTH, attn_implementation="eager"
    )
    reference = Reference(transformers.Blip2QFormerModel(theirs), config)
    randomize(reference)
    x = features(BATCH, PATCHES, WIDTH)
    patch_mask = torch.arange(PATCHES) < torch.tensor([[9], [PATCHES]])
    for mask in (None, patch_mask):
        queries = reference.qformer(
            query_embeds=reference.query_tokens.expand(BATCH, -1, -1),
            encoder_hidden_states=x,
            encoder_attention_mask=mask,
        )
        expected = reference.language_projection(queries.last_hidden_state)
        assert_same(load(config, reference, WIDTH, OUT)(x, patch_mask=mask), expected)


@torch.no_grad()
def test_instructblip_as_in_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    config = q_former(vocab_size=50, max_position_embeddings=8)
    theirs = transformers.InstructBlipQFormerConfig(
        **SMALL, vocab_size=50, max_position_embeddings=8, encoder_hidden_size=WIDTH, attn_implementation="eager"
    )
    reference = Reference(transformers.InstructBlipQFormerModel(theirs), config)
    randomize(reference)
    x, ids = features(BATCH, PATCHES, WIDTH), torch.tensor([[3, 4, 5, 6, 7, 8], [9, 2, 0, 0, 0, 0]])
    attention_mask = (ids > 0).long()
    queries = reference.qformer(
        input_ids=ids,
        attention_mask=torch.cat([torch.ones(BATCH, config.num_queries, dtype=torch.int64), attention_mask], 1),
        query_embeds=reference.query_tokens.expand(BATCH, -1, -1),
        encoder_hidden_states=x,
    )
    expected = reference.language_projection(queries.last_hidden_state[:, : config.num_queries])
    projector = load(config, reference, WIDTH, OUT)
    assert_same(projector(x, ids, attention_mask), expected)
    assert not torch.allclose(projector(x, ids), expected, atol=1e-3)  # the mask counts
    assert not torch.allclose(projector(x), expected, atol=1e-3)  # the instruction counts


@torch.no_grad()
def test_the_perceiver_as_in_transformers() -> None:
    perceiver = pytest.importorskip("transformers.models.idefics.perceiver")
    from transformers import IdeficsConfig

    config = IdeficsConfig(vision_config={"embed_dim": WIDTH}, perceiver_config={"qk_layer_norms_perceiver": False})
    reference = perceiver.IdeficsPerceiverResampler(config, WIDTH, depth=2, n_heads=3, head_dim=8, n_latents=5)
    for _, mlp in reference.blocks:
        mlp.act = nn.GELU()  # Idefics has a ReLU there
    randomize(reference)
    ours = make(resampler())
    ours.queries.copy_(reference.latents)
    ours.norm.load_state_dict(reference.layer_norm.state_dict())
    for block, (attention, mlp) in zip(ours.blocks, reference.blocks, strict=True):
        pairs = (
            (block.query_norm, attention.latents_layer_norm),
            (block.patch_norm, attention.context_layer_norm),
            (block.attention.query, attention.q_proj),
            (block.attention.key, attention.k_proj),
            (block.attention.value, attention.v_proj),
            (block.attention.out, attention.output_proj),
            (block.mlp_norm, mlp.ln),
            (block.mlp[0], mlp.fc),
            (block.mlp[2], mlp.c_proj),
        )
        for here, there in pairs:
            here.load_state_dict(there.state_dict())
    x = features(BATCH, PATCHES, WIDTH)
    assert_same(ours.query_features(x), reference(x))


@torch.no_grad()
def test_the_abstractor_as_its_formula_says() -> None:
    """Written out once more, head by head, since `transformers` has none."""
    projector = make(resampler(block="abstractor", intermediate_size=30, end_token=True))
    x = features(1, PATCHES, WIDTH)
    queries = projector.queries
    for block in projector.blocks:
        n = block.query_norm(queries)
        context = torch.cat([n, block.patch_norm(x[0])])
        heads = [
            part(y).split(8, -1) for part, y in zip(block.attention.children(), (n, context, context), strict=False)
        ]
        mixed = [torch.softmax(q @ k.T / 8**0.5, -1) @ v for q, k, v in zip(*heads, strict=True)]
        queries = n + block.attention.out(torch.cat(mixed, -1))
        z, mlp = block.mlp_norm(queries), block.mlp
        queries = queries + mlp.w2(mlp.norm(functional.silu(mlp.w1(z)) * mlp.w3(z)))
    expected = torch.cat([projector.projection(queries), projector.end_token[None]])
    assert_same(projector(x)[0], expected)


@pytest.mark.parametrize("config", [q_former(), resampler(), resampler(block="abstractor")], ids=str)
@torch.no_grad()
def test_patches_that_are_masked_do_not_matter(config: ProjectorConfig) -> None:
    projector = make(config)
    x = features(BATCH, PATCHES, WIDTH)
    mask = torch.arange(PATCHES).expand(BATCH, -1) < 9
    masked = projector(x, patch_mask=mask)
    torch.testing.assert_close(masked, projector(x[:, :9]), atol=TOLERANCE, rtol=0)
    assert not torch.allclose(masked, projector(x), atol=1e-3)


@every_kind
def test_every_parameter_learns(config: ProjectorConfig) -> None:
    projector = make(config).train()
    ids = (torch.ones(BATCH, 3, dtype=torch.int64),) if getattr(config, "vocab_size", None) else ()
    projector(features(BATCH, PATCHES, WIDTH), *ids).square().sum().backward()
    # In the last layer of a Q-Former nothing looks at what becomes of the instruction.
    last = f"layers.{SMALL['num_hidden_layers'] - 1}.text"
    without = [name for name, parameter in projector.named_parameters() if parameter.grad is None]
    assert [name for name in without if not name.startswith(last)] == []


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ConfigError, match="15 patches are no square grid"):
        PixelShuffleConfig(factor=2).num_tokens(15)
    with pytest.raises(ConfigError, match="5 x 5 patches cannot be cut"):
        make_projector(PixelShuffleConfig(factor=2), WIDTH, OUT)(features(1, 25, WIDTH))
    with pytest.raises(ConfigError, match="factor is 0"):
        PixelShuffleConfig(factor=0)
    with pytest.raises(ConfigError, match="5 heads do not divide"):
        q_former(num_attention_heads=5)
    with pytest.raises(ConfigError, match="head_size is 0"):
        resampler(head_size=0)
    with pytest.raises(ConfigError, match="both must be at least 1"):
        make_projector(LinearConfig(), 0, OUT)
    ids = torch.ones(BATCH, 9, dtype=torch.int64)
    with pytest.raises(UsageError, match="reads no instructions"):
        make(q_former())(features(BATCH, PATCHES, WIDTH), ids)
    with pytest.raises(UsageError, match="9 tokens, this Q-Former reads 8"):
        make(q_former(vocab_size=50, max_position_embeddings=8))(features(BATCH, PATCHES, WIDTH), ids)


def test_weights_that_do_not_fit_are_named() -> None:
    config = MlpConfig()
    with pytest.raises(WeightsError, match=r"multi_modal_projector.linear_1.bias"):
        fit_tensors({}, make_projector(config, WIDTH, OUT), projector_rules(config), where="nothing")
    with pytest.raises(UnsupportedModel, match="no projector like"):
        projector_rules(resampler())
