"""What changes nothing really changes nothing, and nobody else sees the adaptor."""

import sys
from types import ModuleType

import comfy.model_management
import comfy.samplers
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from small_host import FRAMES, Sampler, build_model, conditioning, trained
from ways import UNTRAINED, Way, moved, untrained

from magicvideo.adaptor_unet.host.hosted import fresh_adaptor
from magicvideo.adaptor_unet.host.motion_effect import bind

each_way = pytest.mark.parametrize("way", [moved, untrained])


@pytest.mark.take_turns
@pytest.mark.parametrize("frames", [1, 2, 5, 6, 7, 13])
def test_an_untrained_adaptor_leaves_a_batch_of_any_length_bit_for_bit(
    model: ModelPatcher, sample: Sampler, frames: int
) -> None:
    untrained = bind(model, fresh_adaptor(model, frames=6), fps=12.0)
    assert torch.equal(sample(untrained, frames), sample(model, frames))


@pytest.mark.take_turns
@pytest.mark.parametrize("rank", [0, 8])
@pytest.mark.parametrize("init", ["spatial", "random"])
def test_an_untrained_adaptor_of_any_kind_changes_nothing(
    model: ModelPatcher, sample: Sampler, rank: int, init: str
) -> None:
    assert torch.equal(sample(bind(model, fresh_adaptor(model, rank=rank, init=init))), sample(model))


@pytest.mark.parametrize("way", [moved, *UNTRAINED])
def test_strength_zero_is_the_image_model_bit_for_bit(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, way: Way
) -> None:
    assert torch.equal(sample(way(model, adaptor, strength=0.0)), sample(model))
    assert not torch.equal(sample(way(model, adaptor)), sample(model)), "it should show"


@pytest.mark.parametrize("way", UNTRAINED)
def test_what_is_not_trained_leaves_a_first_frame_bit_for_bit(model: ModelPatcher, sample: Sampler, way: Way) -> None:
    plain = sample(model, 6)
    for strength in (0.3, 1.0):
        assert torch.equal(sample(way(model, strength=strength), 6)[0], plain[0])
    several = sample(way(model, clip=3), 6)
    assert torch.equal(several[[0, 3]], plain[[0, 3]])
    assert not any(torch.equal(several[i], plain[i]) for i in (1, 2, 4, 5))
    assert torch.equal(sample(way(model), 1), sample(model, 1)), "a still stays as it is"


@each_way
@pytest.mark.parametrize("order", ["bound first", "plain first"])
def test_another_branch_of_the_graph_sees_a_clean_model(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, way: Way, order: str
) -> None:
    expected = sample(build_model())
    bound = way(model, adaptor)
    if order == "bound first":
        sample(bound)
    assert torch.equal(sample(model), expected)
    sample(bound)
    assert torch.equal(sample(model), expected)


@each_way
def test_nothing_is_attached_to_the_unet_but_during_a_call(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, way: Way
) -> None:
    unet = model.model.diffusion_model
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    sample(way(model, adaptor))
    assert not [name for name, module in unet.named_modules() if module._forward_hooks]
    assert list(before) == list(unet.state_dict())
    assert all(torch.equal(before[name], value) for name, value in unet.state_dict().items())


def test_ejecting_and_unpatching_gives_the_image_model_back(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    expected = sample(model)
    bound = bind(model, adaptor)
    sample(bound)
    bound.eject_model()
    bound.unpatch_model(bound.offload_device)
    comfy.model_management.unload_all_models()
    assert torch.equal(sample(model), expected)


def host_attributes() -> dict[str, dict[str, int]]:
    """Identity of every attribute of every host module and of the classes in it."""

    def members(holder: ModuleType | type) -> dict[str, int]:
        return {name: id(value) for name, value in vars(holder).items() if callable(value) or isinstance(value, type)}

    modules = {n: m for n, m in sys.modules.items() if n.split(".")[0] in ("comfy", "nodes", "execution", "torch")}
    seen = {name: members(module) for name, module in modules.items() if isinstance(module, ModuleType)}
    for name, module in modules.items():
        if name.startswith("comfy"):
            classes = [x for x in list(vars(module).values()) if isinstance(x, type) and x.__module__ == name]
            seen |= {f"{name}.{c.__qualname__}": members(c) for c in classes}
    return seen


def test_no_attribute_of_a_host_module_is_replaced(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler) -> None:
    sample(model)
    before = host_attributes()
    bound = bind(bind(model, adaptor), trained(fresh_adaptor(model), seed=9))
    sample(untrained(bound))
    after = host_attributes()
    changed = {n: {k for k in v if after[n].get(k) != v[k]} for n, v in before.items() if n in after}
    assert not {n: keys for n, keys in changed.items() if keys}


class OutOfMemoryError(RuntimeError):
    pass


@pytest.mark.take_turns
@pytest.mark.parametrize("failure", [OutOfMemoryError, comfy.model_management.InterruptProcessingException])
@pytest.mark.parametrize(("where", "way"), [("callback", moved), ("unet", moved), ("unet", untrained)])
def test_a_stop_in_the_middle_leaves_everything_as_in_a_fresh_process(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, failure: type[BaseException], where: str, way: Way
) -> None:
    expected, plain = sample(way(model, adaptor), steps=3), sample(model, steps=3)
    bound = way(model, adaptor)
    calls: list = []

    def stop(*args: object) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise failure()

    middle = model.model.diffusion_model.middle_block[0]
    handle = middle.register_forward_hook(stop) if where == "unet" else None
    with pytest.raises(failure):
        sample(bound, steps=3, callback=stop if where == "callback" else None)
    if handle:
        handle.remove()
    assert not [name for name, module in model.model.diffusion_model.named_modules() if module._forward_hooks]
    assert torch.equal(sample(model, steps=3), plain)
    assert torch.equal(sample(bound, steps=3), expected)


@each_way
def test_runs_do_not_colour_one_another(model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler, way: Way) -> None:
    bound = way(model, adaptor)
    first = sample(bound, seed=1, cfg=7.0)
    for other in ({"seed": 2, "cfg": 7.0}, {"seed": 1, "cfg": 1.0}, {"frames": 3}):
        assert sample(bound, **other).shape[0] == other.get("frames", FRAMES)
        assert not torch.equal(sample(bound, **other), sample(model, **other))
    assert torch.equal(sample(bound, seed=1, cfg=7.0), first)


def test_the_conditioning_given_to_the_sampler_stays_as_it_was(
    model: ModelPatcher, adaptor: ModelPatcher, sample: Sampler
) -> None:
    positive = conditioning(3)
    before, names = positive[0][0].clone(), set(positive[0][1])
    sample(bind(model, adaptor), positive=positive)
    assert torch.equal(positive[0][0], before) and set(positive[0][1]) == names
