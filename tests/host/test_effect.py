"""A new effect takes three files and touches none of ours: docs/add_an_effect.md, followed word by word.

The code blocks of the page are run as the files that it names them.  What they make is bound, and sampled with the
small model.
"""

import math
import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from shipped import read
from small_host import SIZE, Sampler, noise_for
from ways import features, moved, planned_bytes, sharp_model

import magicvideo.nodes  # noqa: F401 - the page's node is a file of this package
from magicvideo.adaptor_unet.host.binding import BINDING_KEY, with_causal_windows, with_effect
from magicvideo.adaptor_unet.host.effect import Effect
from magicvideo.adaptor_unet.host.memory import planned_shape
from magicvideo.adaptor_unet.host.motion_effect import bind
from measures import relative

PAGE = Path("docs/add_an_effect.md")
FILE = re.compile(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What chunks may differ by: other batches round otherwise.
CLOSE = 1e-4


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The page's files as modules of the pack, by file name."""
    made = {}
    for path, code in FILE.findall(read(PAGE)):
        name = "magicvideo." + path.removesuffix(".py").replace("/", ".")
        assert name not in sys.modules, f"{path} is there already"
        module = ModuleType(name)
        module.__package__ = name.rpartition(".")[0]
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(code, f"{PAGE}: {path}", "exec"), vars(module))
        made[path] = module
    return made


@pytest.fixture
def kind(files: dict[str, ModuleType]) -> type[Effect]:
    return files["adaptor_unet/host/frame_mix_effect.py"].FrameMix


@pytest.fixture
def model() -> ModelPatcher:
    return sharp_model()


def mixed(model: ModelPatcher, kind: type[Effect], **settings: object) -> ModelPatcher:
    return with_effect(model, kind.of(model, **settings))


def test_the_page_names_one_tensor_file_one_host_file_and_one_node(files: dict[str, ModuleType]) -> None:
    assert [str(Path(path).parent) for path in files] == ["adaptor_unet", "adaptor_unet/host", "nodes"]
    assert len(re.findall("^```python", read(PAGE), re.MULTILINE)) == 3, "every block has a file name"


def test_its_tensors_are_as_its_formula_says(files: dict[str, ModuleType]) -> None:
    tensors, layout = files["adaptor_unet/frame_mix.py"], files["adaptor_unet/frame_mix.py"].FrameLayout
    z = torch.randn(6, 2, 3, 3)
    out = tensors.frame_mix(z, layout.whole(2, 3), 0.5)
    for clip in (0, 3):
        assert torch.equal(out[clip], z[clip])
        for i in (clip + 1, clip + 2):
            torch.testing.assert_close(out[i], 0.75 * z[i] + 0.25 * z[i - 1])
    apart = tensors.frame_mix(z[:4], layout(1, (2, 3, 0, 1), (0, 0, 1, 1)), 1.0)
    assert torch.equal(apart[[0, 2]], z[[0, 2]]), "another clip's frame is none before"


def test_it_acts_and_leaves_the_first_frame_and_the_base_as_they_were(
    model: ModelPatcher, kind: type[Effect], sample: Sampler
) -> None:
    plain, weights = sample(model, 4), {name: x.clone() for name, x in model.model.state_dict().items()}
    out = sample(mixed(model, kind), 4)
    assert relative(out[1:], plain[1:]) > 1e-3 and relative(out[0], plain[0]) < CLOSE
    assert torch.equal(sample(model, 4), plain), "the model that came in"
    assert all(torch.equal(x, weights[name]) for name, x in model.model.state_dict().items())
    assert not any(module._forward_hooks for module in model.model.diffusion_model.modules())
    assert torch.equal(sample(mixed(model, kind, strength=0.0), 4), plain)


def test_it_acts_at_its_noise_levels_and_in_its_clips(model: ModelPatcher, kind: type[Effect], sample: Sampler) -> None:
    assert torch.equal(sample(mixed(model, kind, start_percent=1.0), 4), sample(model, 4))
    half, two = sample(mixed(model, kind, end_percent=0.5), 4), sample(mixed(model, kind, frames_per_clip=2), 4)
    plain, whole = sample(model, 4), sample(mixed(model, kind), 4)
    assert not torch.equal(half, plain) and not torch.equal(half, whole)
    assert relative(two[[0, 2]], plain[[0, 2]]) < CLOSE and relative(two[[1, 3]], plain[[1, 3]]) > 1e-3
    with pytest.raises(ValueError, match="frames_per_clip of Frame Mix is 3, but the latent batch holds 4"):
        sample(mixed(model, kind, frames_per_clip=3), 4)


def test_it_acts_in_its_place_whichever_order_the_nodes_stand_in(
    model: ModelPatcher, kind: type[Effect], sample: Sampler
) -> None:
    """AdaIN changes the features at the same convolutions, so it shows which of the two is first."""

    @dataclass(frozen=True, kw_only=True)
    class Earlier(kind):
        stage: ClassVar[int] = -1

    behind, before = (sample(bound, 4) for bound in (mixed(features(model), kind), features(mixed(model, kind))))
    assert torch.equal(behind, before)
    assert relative(sample(mixed(features(model), Earlier), 4), behind) > 1e-3


def test_it_acts_beside_every_other_effect(
    model: ModelPatcher, adaptor: ModelPatcher, kind: type[Effect], sample: Sampler
) -> None:
    bound = moved(features(mixed(model, kind)), adaptor)
    assert [effect.node for effect in bound.get_attachment(BINDING_KEY).effects] == [
        "Frame Mix",
        "Frame AdaIN",
        "Apply MagicVideo",
    ]
    assert relative(sample(bound, 4), sample(moved(features(model), adaptor), 4)) > 1e-3


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_in_causal_windows_it_gives_what_the_whole_clip_gives(
    model: ModelPatcher, kind: type[Effect], sample: Sampler, chunk: int
) -> None:
    whole = sample(mixed(model, kind), 6)
    for bound in (
        with_causal_windows(mixed(model, kind), chunk),
        mixed(with_causal_windows(model, chunk, offload=True), kind),
    ):
        assert relative(sample(bound, 6), whole) < CLOSE


def test_frame_by_frame_it_sees_the_finished_frames(
    model: ModelPatcher, kind: type[Effect], adaptor: ModelPatcher, sample: Sampler
) -> None:
    bound = mixed(bind(model, adaptor, order="frame by frame"), kind)
    noise = noise_for(5)
    whole = sample(bound, noise=noise, latent=torch.zeros_like(noise))
    assert torch.equal(sample(bound, noise=noise[:3], latent=torch.zeros(3, 4, SIZE, SIZE)), whole[:3])
    assert relative(whole, sample(bind(model, adaptor, order="frame by frame"), noise=noise, latent=noise * 0)) > 1e-3


def test_the_host_plans_memory_for_it(
    model: ModelPatcher, kind: type[Effect], sample: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = with_causal_windows(mixed(model, kind), 8)
    runs = ((model, 32), (mixed(model, kind), 32), (ours, 32), (ours, 64), (ours, 8))
    plain, whole, chunks, longer, one_chunk = planned_bytes(
        monkeypatch, *(partial(sample, bound, frames, cfg=1.0, steps=1) for bound, frames in runs)
    )
    assert one_chunk == chunks == longer < plain < whole


@pytest.mark.parametrize("offload", [False, True])
def test_its_plan_counts_what_it_says(model: ModelPatcher, kind: type[Effect], offload: bool) -> None:
    """Many of them, because a plan goes by whole frames, of which one effect needs a small part."""
    effects, shape, latent = (kind.of(model),) * 1000, (32, 4, 8, 8), model.memory_required([1, 4, 8, 8])
    whole, *_ = planned_shape(model, shape, effects, at_once=32, offloaded=False)
    chunk, *_ = planned_shape(model, shape, effects, at_once=8, offloaded=offload)
    asked = [1000 * effects[0].activation_bytes(model, frames, 8, 8) / latent for frames in (32, 8)]
    kept = 0 if offload else 1000 * effects[0].cache_bytes(model, 32, 8, 8) / latent
    assert 0 <= whole - (32 + asked[0]) < 1 and 0 <= chunk - (8 + asked[1] + kept) < 1
    assert kept > 10 or offload


def test_its_node_does_the_same(
    model: ModelPatcher, kind: type[Effect], files: dict[str, ModuleType], sample: Sampler
) -> None:
    node = files["nodes/mix.py"].FrameMixNode
    settings = {"strength": 0.5, "start_percent": 0.0, "end_percent": 1.0, "frames_per_clip": 2}
    shown = node.define_schema()
    assert [given.id for given in shown.inputs] == ["model", *settings]
    # The oldest host knows no such words.
    assert len(getattr(shown, "search_aliases", "--")) >= 2, "tests/server/test_node_listing.py wants two or more"
    (bound,) = node.execute(model, **settings).result
    assert torch.equal(sample(bound, 4), sample(mixed(model, kind, strength=0.5, frames_per_clip=2), 4))


def test_settings_that_cannot_work_are_refused_in_its_name(model: ModelPatcher, kind: type[Effect]) -> None:
    for settings, told in (({"strength": 2.0}, "must lie in 0 to 1"), ({"frames_per_clip": -1}, "must be 0 or more")):
        with pytest.raises(ValueError, match=f"of Frame Mix {told}"):
            kind.of(model, **settings)


def test_a_strength_is_refused_with_the_most_that_its_effect_takes(model: ModelPatcher, kind: type[Effect]) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Half(kind):
        most_strength: ClassVar[float] = 0.5

    @dataclass(frozen=True, kw_only=True)
    class Scaling(kind):
        most_strength: ClassVar[float] = math.inf

    with pytest.raises(ValueError, match=r"strength of Frame Mix must lie in 0 to 0\.5, found 1\.0"):
        Half.of(model)
    assert Scaling.of(model, strength=-3.0).strength == -3.0
