"""A motion module brings its noise schedule, on its own clone of the model and nowhere else, whatever is loaded."""

import comfy.model_sampling
import comfy.utils
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from small_host import Sampler, build_model
from torch import Tensor

from magicvideo.adaptor_unet.host.binding import with_effect
from magicvideo.adaptor_unet.host.motion_module_effect import MotionModuleEffect
from magicvideo.adaptor_unet.host.noise_schedule import SAMPLING_OBJECT, KeptTables
from motion_modules import motion_module

PLAIN, ANIMATEDIFF = 14.6146, 25.1465
LEAST = 0.0292


def applied(model: ModelPatcher, variant: str = "v3", choice: str = "auto", **settings: object) -> ModelPatcher:
    module = motion_module(variant)
    return with_effect(model, MotionModuleEffect.of(model, motion_module=module, noise_schedule=choice, **settings))


def sampling(model: ModelPatcher) -> comfy.model_sampling.ModelSamplingDiscrete:
    return model.get_model_object(SAMPLING_OBJECT)


@pytest.mark.parametrize(
    ("variant", "choice", "most", "entries"),
    [
        ("v1", "auto", ANIMATEDIFF, 1000),
        ("v2", "auto", ANIMATEDIFF, 1000),
        ("v3", "auto", ANIMATEDIFF, 1000),
        ("lcm", "auto", ANIMATEDIFF, 100),
        ("lcm", "AnimateDiff", ANIMATEDIFF, 1000),
        ("v2", "AnimateLCM", ANIMATEDIFF, 100),
        ("v2", "the model's own", PLAIN, 1000),
        ("lcm", "the model's own", PLAIN, 1000),
    ],
)
def test_each_kind_has_its_own(model: ModelPatcher, variant: str, choice: str, most: float, entries: int) -> None:
    found = sampling(applied(model, variant, choice))
    assert float(found.sigma_max) == pytest.approx(most, rel=1e-4) and len(found.sigmas) == entries
    if entries == 1000:
        assert float(found.sigma_min) == pytest.approx(LEAST, rel=1e-2)
    assert float(sampling(model).sigma_max) == pytest.approx(PLAIN, rel=1e-4), "the model that came in"


def test_a_second_node_sets_the_table_of_its_own_module(model: ModelPatcher) -> None:
    for first in ("lcm", "v2"):
        for second, entries in (("lcm", 100), ("v3", 1000)):
            found = sampling(applied(applied(model, first), second))
            assert len(found.sigmas) == entries and type(found).__mro__.count(KeptTables) == 1


def test_the_betas_grow_evenly(model: ModelPatcher) -> None:
    betas = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
    kept = torch.cumprod(1 - betas, dim=0)
    expected = ((1 - kept) / kept).sqrt()
    torch.testing.assert_close(sampling(applied(model)).sigmas.double(), expected, rtol=1e-4, atol=1e-5)
    hundred = sampling(applied(model, "lcm"))
    torch.testing.assert_close(hundred.sigmas.double(), expected[9::10], rtol=1e-4, atol=1e-5)
    assert hundred.timestep(hundred.sigmas[[0, 99]]).tolist() == [9, 999]


def test_at_strength_0_the_schedule_stays_too(model: ModelPatcher) -> None:
    assert sampling(applied(model, strength=0.0)) is sampling(model)


class Seen:
    """The noise levels of a sampling, and the timesteps that reach the UNet."""

    def __init__(self, model: ModelPatcher) -> None:
        self.sigmas: list[float] = []
        self.timesteps: list[float] = []
        self.model = model.clone()
        self.model.add_wrapper(WrappersMP.SAMPLER_SAMPLE, self.around_sampler)
        self.model.add_wrapper(WrappersMP.DIFFUSION_MODEL, self.around_unet)

    def around_sampler(self, executor: object, guider: object, sigmas: Tensor, *args: object, **kw: object) -> Tensor:
        self.sigmas = [float(sigma) for sigma in sigmas]
        return executor(guider, sigmas, *args, **kw)

    def around_unet(self, executor: object, x: Tensor, timesteps: Tensor, *args: object, **kw: object) -> Tensor:
        self.timesteps.append(float(timesteps[0]))
        return executor(x, timesteps, *args, **kw)


def check(seen: Seen, most: float) -> None:
    assert seen.sigmas[0] == pytest.approx(most, rel=1e-3)
    assert seen.timesteps == pytest.approx([999, 499.5, 0], abs=1), "so the tables too were those of the model"


@pytest.mark.parametrize("first", [0, 1])
def test_two_clones_in_one_graph_are_each_sampled_at_their_own_noise_levels(
    model: ModelPatcher, sample: Sampler, first: int
) -> None:
    branches = [(Seen(model), PLAIN), (Seen(applied(model)), ANIMATEDIFF)]
    for turn in (first, 1 - first, first, 1 - first):
        seen, most = branches[turn]
        seen.timesteps.clear()
        sample(seen.model, 4, steps=3)
        check(seen, most)
    assert branches[0][0].sigmas[1] != pytest.approx(branches[1][0].sigmas[1], rel=1e-2)


def test_it_moves_with_the_model_and_can_be_copied(model: ModelPatcher) -> None:
    found = sampling(applied(model))
    assert found.to(torch.float64).sigmas.dtype == torch.float64
    assert not dict(found.named_buffers()) and not found.state_dict()
    found.set_sigmas(torch.tensor([1.0, 2.0]))
    assert float(found.sigma_max) == 2.0


class WithBackup:
    """What a host with dynamic memory does at each load: it notes all buffers by their name in the model, writes them
    to the device, and writes back what it noted at the next load, whichever objects stand there by then."""

    def __init__(self, model: ModelPatcher) -> None:
        self.model, self.noted = model.model, {}
        self.own = sampling(model)

    def load(self, model: ModelPatcher) -> Tensor:
        """The highest noise level that a sampler finds after loading this clone."""
        setattr(self.model, SAMPLING_OBJECT, model.object_patches.get(SAMPLING_OBJECT, self.own))
        for name, buffer in list(self.noted.items()):
            write(self.model, name, buffer)
        self.noted.clear()
        for name, buffer in list(self.model.named_buffers()):
            self.noted.setdefault(name, buffer)
            write(self.model, name, buffer.clone())
        return float(getattr(self.model, SAMPLING_OBJECT).sigma_max)


def write(root: torch.nn.Module, name: str, value: Tensor) -> None:
    """As the host's own function, which the oldest does not have yet."""
    path, _, leaf = name.rpartition(".")
    root.get_submodule(path).register_buffer(leaf, value, persistent=True)


def stock_schedule(model: ModelPatcher) -> ModelPatcher:
    """The same schedule in an object of the host's own class."""
    clone = model.clone()
    made = type(sampling(model))(model.model.model_config)
    made.set_sigmas(sampling(applied(model)).sigmas.clone())
    clone.add_object_patch(SAMPLING_OBJECT, made)
    return clone


def test_a_host_that_writes_buffers_back_by_their_names_does_not_reach_it() -> None:
    model = build_model()
    host, moving = WithBackup(model), applied(model)
    found = [host.load(one) for one in (model, moving, model, moving, moving, model)]
    expected = [PLAIN, ANIMATEDIFF, PLAIN, ANIMATEDIFF, ANIMATEDIFF, PLAIN]
    assert found == pytest.approx(expected, rel=1e-4)


def test_an_object_of_the_hosts_own_class_would_get_anothers_noise_levels() -> None:
    """What our class is for; without it the emulation shows the fault."""
    model = build_model()
    host, moving = WithBackup(model), stock_schedule(model)
    assert host.load(moving) == pytest.approx(ANIMATEDIFF, rel=1e-4)
    found = [host.load(one) for one in (model, moving)]
    assert found != pytest.approx([PLAIN, ANIMATEDIFF], rel=1e-4)


def test_what_the_model_predicts_stays_as_it_was(model: ModelPatcher) -> None:
    for kind in ("v_prediction", "lcm", "eps"):
        (other,) = ModelSamplingDiscrete().patch(model, kind, False)
        found, given = sampling(applied(other, "v3")), sampling(other)
        assert isinstance(found, type(given)) and float(found.sigma_max) == pytest.approx(ANIMATEDIFF, rel=1e-4)
        assert len(found.sigmas) == len(given.sigmas)
        sigma, x = torch.tensor([3.0]), torch.ones(1, 4, 2, 2)
        out = found.calculate_denoised(sigma, x, 2 * x)
        torch.testing.assert_close(out, given.calculate_denoised(sigma, x, 2 * x), rtol=1e-3, atol=1e-3)


def test_zero_terminal_noise_of_another_node_stays(model: ModelPatcher) -> None:
    (other,) = ModelSamplingDiscrete().patch(model, "v_prediction", True)
    assert float(sampling(applied(other)).sigma_max) > 1000


def test_a_model_without_timesteps_is_refused(model: ModelPatcher) -> None:
    other = model.clone()
    other.add_object_patch(SAMPLING_OBJECT, comfy.model_sampling.ModelSamplingContinuousEDM())
    with pytest.raises(ValueError, match=r"model with timesteps, but .* sampled by ModelSamplingContinuousEDM.*own"):
        applied(other)
    assert applied(other, choice="the model's own")
