"""The demo's narrow image network and its zero-padded copy are one and the same, inside ComfyUI, adaptor and all."""

import json
from dataclasses import replace

import comfy.model_base
import comfy.supported_models
import pytest
import small_host
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from magicvideo.adaptor_unet.adaptor import AdaptorConfig, VideoAdaptor
from magicvideo.adaptor_unet.host.base_model import check_fit, config_for
from magicvideo.adaptor_unet.host.hosted import fresh_adaptor, hosted
from magicvideo.adaptor_unet.host.motion_effect import bind
from magicvideo.adaptor_unet.initialisation import new_adaptor
from magicvideo.demo.model.compact_checkpoint import checkpoint_shapes, unet_settings
from magicvideo.demo.model.narrow_unet import NARROW_HEADS, narrow_model
from magicvideo.demo.model.padding import padded_adaptor, padded_settings, padded_unet
from magicvideo.demo.model.sizes import CHANNELS, TEXT_POSITIONS, UNET
from magicvideo.demo.train.few_tokens import few_token_options

TOKENS = 3


@pytest.fixture(scope="module")
def narrow() -> ModelPatcher:
    """Every weight moved, so that nothing is zero by chance."""
    model = narrow_model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.model.diffusion_model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator) / max(1, parameter[0].numel()) ** 0.5
            is_norm = name.endswith("weight") and parameter.ndim == 1
            parameter.copy_(1 + 0.3 * values if is_norm else values)
    return model


@pytest.fixture(scope="module")
def wide(narrow: ModelPatcher) -> ModelPatcher:
    """The padded weights in the UNet that a stock loader makes for the checkpoint."""
    settings = unet_settings(CHANNELS)
    config = comfy.supported_models.SD15(settings)
    config.unet_config = settings
    config.manual_cast_dtype = None
    model = comfy.model_base.BaseModel(config, device="cpu")
    model.diffusion_model.load_state_dict(padded_unet(narrow.model.diffusion_model.state_dict()))
    device = torch.device("cpu")
    return type(narrow)(model, device, device)


def text(seed: int, tokens: int = TEXT_POSITIONS) -> Tensor:
    """A prompt of a few words, the other tokens zero."""
    vectors = torch.zeros(1, tokens, 768)
    vectors[:, :TOKENS] = torch.randn(1, TOKENS, 768, generator=torch.Generator().manual_seed(seed))
    return vectors


def predicted(model: ModelPatcher, context: Tensor, **options: object) -> Tensor:
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return model.model.diffusion_model(x, torch.tensor([10.0, 700.0]), context.repeat(2, 1, 1), **options)


def test_padded_weights_have_the_shapes_of_the_checkpoint(narrow: ModelPatcher) -> None:
    shapes = {UNET + name: tuple(w.shape) for name, w in padded_unet(narrow.model.diffusion_model.state_dict()).items()}
    assert shapes == {name: shape for name, shape in checkpoint_shapes().items() if name.startswith(UNET)}


def test_narrow_and_padded_network_predict_the_same(narrow: ModelPatcher, wide: ModelPatcher) -> None:
    here, there = predicted(narrow, text(1)), predicted(wide, text(1))
    assert here.std() > 0.1
    torch.testing.assert_close(there, here, atol=1e-5 * here.abs().max().item(), rtol=0)


def test_a_network_padded_without_regard_to_its_parts_would_show(narrow: ModelPatcher, wide: ModelPatcher) -> None:
    weights = padded_unet(narrow.model.diffusion_model.state_dict())
    name = "middle_block.1.transformer_blocks.0.ff.net.0.proj.weight"
    value, gate = narrow.model.diffusion_model.state_dict()[name].chunk(2)
    joined = torch.zeros_like(weights[name])
    joined[: 2 * len(value), : value.shape[1]] = torch.cat([value, gate])
    wide.model.diffusion_model.load_state_dict(weights | {name: joined})
    try:
        assert not torch.allclose(predicted(wide, text(1)), predicted(narrow, text(1)), atol=1e-3)
    finally:
        wide.model.diffusion_model.load_state_dict(weights)


def test_few_tokens_stand_for_all_of_them(narrow: ModelPatcher) -> None:
    options = few_token_options(narrow.model.diffusion_model)
    few = predicted(narrow, text(1, TOKENS), transformer_options=options)
    torch.testing.assert_close(few, predicted(narrow, text(1)), atol=1e-5, rtol=0)
    without = predicted(narrow, text(1, TOKENS))
    assert not torch.allclose(few, without, atol=1e-3), "the zero tokens take part in the softmax"


@pytest.fixture(params=[0, 4], ids=["full rank", "low rank"])
def narrow_adaptor(request: pytest.FixtureRequest, narrow: ModelPatcher) -> VideoAdaptor:
    config = config_for(narrow, frames=4, heads=NARROW_HEADS, rank=request.param, rotary=True)
    return small_host.trained(hosted(new_adaptor(config, "random"))).model


def padded_config(config: AdaptorConfig) -> AdaptorConfig:
    return AdaptorConfig.from_json(json.dumps(padded_settings(json.loads(config.to_json()))))


def widened(adaptor: VideoAdaptor) -> VideoAdaptor:
    wide = VideoAdaptor(padded_config(adaptor.config))
    wide.load_state_dict(padded_adaptor(adaptor.state_dict()))
    return wide


def sampled(model: ModelPatcher, adaptor: VideoAdaptor | None) -> Tensor:
    model = bind(model, hosted(adaptor), fps=8.0) if adaptor else model
    prompts = {"positive": [[text(1), {}]], "negative": [[text(2), {}]]}
    return small_host.sample(model, frames=4, **prompts)


def test_a_padded_adaptor_moves_the_padded_network_alike(
    narrow: ModelPatcher, wide: ModelPatcher, narrow_adaptor: VideoAdaptor
) -> None:
    here, there = sampled(narrow, narrow_adaptor), sampled(wide, widened(narrow_adaptor))
    scale = here.abs().max().item()
    assert (here - sampled(narrow, None)).abs().max() > 0.01 * scale, "the adaptor should show"
    torch.testing.assert_close(there, here, atol=1e-4 * scale, rtol=0)


def test_a_padded_adaptor_fits_the_padded_network(wide: ModelPatcher, narrow_adaptor: VideoAdaptor) -> None:
    check_fit(wide, padded_config(narrow_adaptor.config))
    with pytest.raises(ValueError, match="another UNet|made for a UNet"):
        check_fit(wide, narrow_adaptor.config)


def test_an_untrained_adaptor_pads_to_an_untrained_one(narrow: ModelPatcher) -> None:
    adaptor = new_adaptor(config_for(narrow, frames=4, heads=NARROW_HEADS), "random")
    wide = widened(adaptor)
    assert all(
        (part.scale == 1).all() and (part.shift == 0).all() for part in wide.frame.modules() if hasattr(part, "scale")
    )


def test_an_adaptor_whose_heads_are_too_narrow_is_refused(narrow: ModelPatcher) -> None:
    config: AdaptorConfig = replace(config_for(narrow), heads=8)
    with pytest.raises(ValueError, match="heads of 40 channels"):
        padded_config(config)
    assert fresh_adaptor(narrow).model.config.heads == 8, "the default, which does not pad"
