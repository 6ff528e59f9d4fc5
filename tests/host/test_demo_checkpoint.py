"""The demo's checkpoint in the stock loader: what ComfyUI makes of it is what was trained."""

import comfy.sd
import comfy.supported_models
import pytest
import small_host
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from magicvideo.demo.model.compact_checkpoint import checkpoint_shapes
from magicvideo.demo.model.make_checkpoint import demo_checkpoint, host_tokenizer
from magicvideo.demo.model.narrow_unet import narrow_model
from magicvideo.demo.model.sizes import AUTOENCODER
from magicvideo.demo.model.small_autoencoder import SmallAutoencoder, padded
from magicvideo.demo.world.vocabulary import word_vector
from magicvideo.demo.world.words import MEANINGS, SILENT, meanings_of

PROMPT = "a kitten drifting left on a purple wall"


@pytest.fixture(scope="module")
def narrow() -> ModelPatcher:
    model = narrow_model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.model.diffusion_model.parameters():
            fan_in = max(1, parameter[0].numel())
            parameter.copy_((torch.randn(parameter.shape, generator=generator) / fan_in**0.5).half().float())
    return model


@pytest.fixture(scope="module")
def autoencoder() -> SmallAutoencoder:
    torch.manual_seed(0)
    network = SmallAutoencoder().requires_grad_(False)
    for parameter in network.parameters():
        parameter.copy_((2 * parameter).half().float())
    return network


@pytest.fixture(scope="module")
def loaded(narrow: ModelPatcher, autoencoder: SmallAutoencoder) -> tuple:
    """MODEL, CLIP and VAE as the stock checkpoint loader makes them."""
    base, tokenizer = narrow.model.diffusion_model.state_dict(), host_tokenizer()
    weights = demo_checkpoint(base, autoencoder.state_dict(), tokenizer)
    return comfy.sd.load_state_dict_guess_config({name: weight.half() for name, weight in weights.items()})[:3]


def test_padded_weights_have_the_names_and_shapes_of_the_checkpoint(autoencoder: SmallAutoencoder) -> None:
    shapes = {name: shape for name, shape in checkpoint_shapes().items() if name.startswith(AUTOENCODER)}
    scale, shift = f"{AUTOENCODER}vae_scale", f"{AUTOENCODER}vae_shift"
    found = {name: tuple(weight.shape) for name, weight in padded(autoencoder.state_dict()).items()}
    assert found | {scale: (), shift: ()} == shapes


def encoded(clip: comfy.sd.CLIP, prompt: str) -> Tensor:
    with torch.inference_mode():
        return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0][0].float()


def vectors(words: str) -> Tensor:
    """n d: those of the known words, in their order."""
    return torch.stack([word_vector(meaning) for meaning in meanings_of(words)])


def test_it_is_an_sd15_model_that_predicts_as_the_narrow_one(narrow: ModelPatcher, loaded: tuple) -> None:
    model = loaded[0]
    assert isinstance(model.model.model_config, comfy.supported_models.SD15)
    prompts = {"positive": [[encoded(loaded[1], PROMPT), {}]], "negative": [[encoded(loaded[1], ""), {}]]}
    here, there = (small_host.sample(one, frames=2, cfg=3.0, **prompts) for one in (narrow, model))
    assert here.std() > 0.1
    torch.testing.assert_close(there, here, atol=0.02 * here.abs().max().item(), rtol=0)


def test_known_words_reach_the_image_network_as_their_vectors_and_all_else_as_nothing(loaded: tuple) -> None:
    text = encoded(loaded[1], PROMPT)[0]
    known = text[text.abs().amax(-1) > 0.01]
    torch.testing.assert_close(known, vectors(PROMPT), atol=0.02, rtol=0)
    assert text.abs().amax(-1).gt(0).sum() == 3 and len(text) == 77
    assert encoded(loaded[1], "").count_nonzero() == 0


def test_every_word_is_known_to_the_text_encoder_or_silent(loaded: tuple) -> None:
    words = sorted(MEANINGS)
    text = encoded(loaded[1], " ".join(words))[0]  # as long as it takes, 77 tokens at a time
    found = text[text.abs().amax(-1) > 0.01]
    torch.testing.assert_close(found, vectors(" ".join(words)), atol=0.02, rtol=0)
    assert encoded(loaded[1], " ".join(sorted(SILENT))).count_nonzero() == 0


def test_the_autoencoder_codes_as_the_narrow_one(autoencoder: SmallAutoencoder, loaded: tuple) -> None:
    vae = loaded[2]
    pictures = torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(3))
    expected = autoencoder.encode(pictures.movedim(-1, 1))
    with torch.inference_mode():
        latents = vae.encode(pictures).float()
        decoded = vae.decode(latents).float()
    scaled = loaded[0].model.process_latent_in(latents)
    torch.testing.assert_close(scaled, expected, atol=0.02 * expected.abs().max().item(), rtol=0.02)
    shown = autoencoder.decode(expected).clamp(0, 1).movedim(1, -1)
    torch.testing.assert_close(decoded, shown, atol=0.02, rtol=0)


def test_weights_of_another_network_are_refused(narrow: ModelPatcher, autoencoder: SmallAutoencoder) -> None:
    base = narrow.model.diffusion_model.state_dict()
    base.pop("out.2.bias")
    with pytest.raises(ValueError, match=r"another network: model\.diffusion_model\.out\.2\.bias"):
        demo_checkpoint(base, autoencoder.state_dict(), host_tokenizer())
