"""The loss that trains the demo's image network is that of the denoiser which ComfyUI samples with."""

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch.nn.functional import pad

from magicvideo.demo.model.narrow_unet import narrow_model
from magicvideo.demo.train.base import MOST_WEIGHT, Denoiser
from magicvideo.demo.train.encode_stills import MEANING_NUMBERS
from magicvideo.demo.world.vocabulary import word_vector

# The training of the demo's base is no part of the pack.
pytestmark = pytest.mark.on_newest

STEPS = torch.tensor([3, 250, 999])
PROMPT = "cat left blue"


@pytest.fixture(scope="module")
def narrow() -> ModelPatcher:
    torch.manual_seed(0)
    model = narrow_model()
    with torch.no_grad():
        for parameter in model.model.diffusion_model.out.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def test_the_loss_is_the_error_of_the_hosts_own_denoiser(narrow: ModelPatcher) -> None:
    sampling, denoiser = narrow.model.model_sampling, Denoiser(narrow.model.model_sampling.sigmas)
    latents, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    words = torch.tensor([[MEANING_NUMBERS[word] for word in PROMPT.split()]] * 3)
    found = denoiser.losses(narrow.model.diffusion_model, latents, words, STEPS, noise)

    sigma = sampling.sigma(STEPS.float())
    noisy = latents + sigma.view(-1, 1, 1, 1) * noise
    with torch.inference_mode():
        words = torch.stack([word_vector(word) for word in PROMPT.split()])
        text = pad(words, (0, 0, 0, 77 - len(words))).repeat(3, 1, 1)
        denoised = narrow.model.apply_model(noisy, sigma, c_crossattn=text)
    predicted = (noisy - denoised) / sigma.view(-1, 1, 1, 1)
    expected = (predicted - noise).square().mean(dim=(1, 2, 3))
    assert (predicted.std(dim=(1, 2, 3)) > 0.05).all(), "the network should have a say"
    torch.testing.assert_close(found, expected, rtol=0.01, atol=1e-3)


def test_high_noise_weighs_more_up_to_a_limit(narrow: ModelPatcher) -> None:
    denoiser = Denoiser(narrow.model.model_sampling.sigmas)
    weights = denoiser.weights(torch.arange(1000))
    torch.testing.assert_close(weights[0], torch.tensor(1.0), atol=0.01, rtol=0)
    assert (weights.diff() >= 0).all() and weights[-1] == MOST_WEIGHT and weights[500] < MOST_WEIGHT


def test_a_new_network_predicts_nothing_and_every_layer_gets_a_gradient_after_a_step() -> None:
    torch.manual_seed(0)
    unet = narrow_model().model.diffusion_model.requires_grad_(True)
    denoiser = Denoiser(narrow_model().model.model_sampling.sigmas)
    latents, words = torch.randn(3, 4, 8, 8), torch.tensor([[1, 20, 0]] * 3)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-2)
    for step in range(3):
        noise = torch.randn(latents.shape)
        losses = denoiser.losses(unet, latents, words, STEPS, noise)
        if step == 0:
            torch.testing.assert_close(losses, noise.square().mean(dim=(1, 2, 3)))
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    still = [name for name, parameter in unet.named_parameters() if not parameter.grad.count_nonzero()]
    assert still == []
