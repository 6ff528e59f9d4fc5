"""Clips that come over wires are taken as those of a folder are, and leave main memory once they are encoded."""

import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_host import build_model
from torch import Tensor

from fake_encoders import FakeEncoders
from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.latent_clip import TrainingClips
from magicvideo.adaptor_unet.training.settings import RunSettings
from magicvideo.trainer.graph import encoders_of
from magicvideo.trainer.node_inputs import INPUTS, WiredClips, as_bytes, clips_asked_for, settings_asked_for
from magicvideo.trainer.plans import AdaptorPlan

pytestmark = pytest.mark.on_newest
DATA = DataSettings(frames=3, width=32, height=32, fps_min=0.0)
SIDE = 32


def shots(*lengths: int) -> Tensor:
    """f h w 3: shots of so many frames, alternately dark and bright; within one the grey hardly changes."""
    greys = [0.9 * (place % 2) + 0.005 * frame for place, length in enumerate(lengths) for frame in range(length)]
    return torch.tensor(greys).reshape(-1, 1, 1, 1).expand(-1, SIDE, SIDE, 3)


def encoded(wired: WiredClips, validation_clips: int = 4, data: DataSettings = DATA) -> TrainingClips:
    return wired.encoded(data, validation_clips, FakeEncoders(), lambda *told: None)


def crossing(clips: TrainingClips) -> int:
    """How many sub-clips show both dark and bright frames."""
    greys = [clips.train[item].latents.mean((1, 2, 3)) for item in range(len(clips.train))]
    return sum(bool(grey.max() - grey.min() > 1) for grey in greys)


def test_sub_clips_of_wired_frames_cross_no_cut() -> None:
    wired = WiredClips(images=[shots(6, 8)])
    assert crossing(encoded(wired)) == 0
    assert crossing(encoded(wired, data=DataSettings(frames=3, width=32, height=32, within_shots=False))) > 0
    with pytest.raises(ValueError, match="Clip 1 of the batch has 3 shots, of which the longest has 2 frames"):
        encoded(WiredClips(images=[shots(2, 2, 2)]))


class Video:
    """As the host hands videos over; counts how many of its decoded frames are still in memory."""

    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    def __init__(self, frames: int = 6) -> None:
        self.frames = frames

    def get_components(self) -> SimpleNamespace:
        images = shots(self.frames).clone()
        Video.alive.add(images)
        Video.most = max(Video.most, len(Video.alive))
        return SimpleNamespace(images=images, frame_rate=8)


@pytest.mark.parametrize(("count", "asked", "held"), [(10, 4, 2), (10, 1, 1), (5, 4, 1), (4, 4, 0)])
def test_one_in_five_is_held_out_whole(count: int, asked: int, held: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    captions = [f"clip {place}" for place in range(count)]
    clips = encoded(WiredClips(videos=[Video()] * count, captions=captions), asked)
    train = {clips.train[item].caption for item in range(len(clips.train))}
    apart = {clip.caption for clip in clips.held_out}
    assert clips.clip_count == len(train) == count - held
    assert len(clips.held_out) == asked
    if held:
        assert not train & apart and train | apart == {*captions}
        assert f"{held} of {count} clips are held out" in caplog.text
    else:
        assert apart <= train and "too few clips to hold one out" in caplog.text


def test_stills_among_wired_clips_are_not_held_out() -> None:
    stills, clips = [shots(1)] * 30, [shots(4)] * 5
    made = encoded(WiredClips(images=[*stills, *clips]))
    assert {len(clip.latents) for clip in made.held_out} == {3}
    assert made.clip_count == 34
    few = encoded(WiredClips(images=[*stills[:3], clips[0]]), 2)
    assert {len(clip.latents) for clip in few.held_out} == {3}


def test_one_video_at_a_time_is_in_memory_and_none_is_behind_it() -> None:
    wired = WiredClips(videos=[Video() for _ in range(3)])
    Video.most = 0
    for _ in wired.given(DATA, SimpleNamespace(beside_words=lambda caption: "")):
        pass
    encoded(wired)
    assert Video.most == 1 and not Video.alive


def test_what_a_bicubic_scaling_makes_too_bright_or_too_dark_is_white_or_black() -> None:
    pixels = torch.tensor([-0.11, 0.0, 0.5, 1.0, 1.11]).expand(3, 1, 1, 5).permute(1, 2, 3, 0)
    assert as_bytes(pixels)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_clips_are_named_frame_by_frame_and_by_all_their_values() -> None:
    def largest(wired: WiredClips) -> int:
        return max(x.numel() for _, x in wired.given(DATA, SimpleNamespace(beside_words=lambda caption: "")))

    assert largest(WiredClips(videos=[Video(40)])) == largest(WiredClips(images=[shots(40)])) == SIDE * SIDE * 3
    assert largest(WiredClips(latents=[{"samples": torch.zeros(5, 4, 8, 8)}])) == 4 * 8 * 8


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((3, 16, 4, 4), "given latents or an autoencoder of 16 channels, but the model works with 4"),
        ((1, 4, 3, 4, 4), r"Clip 2 .* is a latent of the shape \[1, 4, 3, 4, 4\]; expected four numbers"),
    ],
)
def test_latents_of_another_kind_of_model_are_refused_in_words(shape: tuple[int, ...], words: str) -> None:
    sound, encoders = torch.ones(3, 4, 4, 4), FakeEncoders()
    encoders.model = build_model(model_channels=32)
    wired = WiredClips(latents=[{"samples": sound}, {"samples": torch.ones(shape)}])
    with pytest.raises(ValueError, match=words):
        wired.encoded(DATA, 1, encoders, lambda *told: None)
    assert encoders.captions == [], "before anything is encoded"


FOLDER = {"clips_folder": ["waves"], "fps": [8.0]}
NO_USE = {
    "captions of .* text files or tables beside": FOLDER | {"captions": ["a wave"]},
    "conditioning of .* text files or tables beside": FOLDER | {"conditioning": [[]]},
    "captions and conditioning of .* from prompts": {"clips_folder": [""], "captions": ["a"], "conditioning": [[]]},
}


@pytest.mark.parametrize("words", NO_USE)
def test_captions_of_clips_that_have_their_own_are_refused(words: str) -> None:
    with pytest.raises(ValueError, match=words):
        clips_asked_for(NO_USE[words], needed="waves" in NO_USE[words]["clips_folder"])


def test_an_empty_caption_is_none_and_no_clips_at_all_are_told_of_first() -> None:
    assert clips_asked_for({"clips_folder": [""], "captions": [" "]}, needed=False) is None
    with pytest.raises(ValueError, match="found none"):
        clips_asked_for({"clips_folder": [""], "captions": ["a wave"]})


def test_settings_of_a_new_adaptor_are_refused_beside_one_that_is_connected() -> None:
    defaults = {name: [one.default] for name, one in INPUTS.items()}
    own = {"settings": ["rank = 64\nshared_noise = 0.2\nbatch = 2"]}
    with pytest.raises(ValueError, match="brings its own rank, shared_noise: take that out of settings"):
        settings_asked_for(defaults | own | {"adaptor": [object()]})
    assert settings_asked_for(defaults | own).adaptor.rank == 64
    assert settings_asked_for(defaults | {"settings": ["batch = 2"], "adaptor": [object()]}).training.batch == 2


def test_a_wired_picture_may_be_transparent_or_grey() -> None:
    see_through = torch.tensor([0.2, 0.4, 0.6, 0.0, 0.2, 0.4, 0.6, 1.0, 0.0, 0.0, 0.0, 0.5]).reshape(1, 1, 3, 4)
    assert as_bytes(see_through)[0, 0].tolist() == [[255] * 3, [51, 102, 153], [128] * 3], (
        "white behind it, as on a page"
    )
    assert as_bytes(torch.full((2, 4, 4, 1), 0.2)).tolist() == torch.full((2, 4, 4, 3), 51).tolist()


@pytest.mark.parametrize("chosen", [{"flip": True}, {"crop": "random"}, {"bucket_sizes": True}])
def test_settings_of_pictures_are_refused_for_latents(chosen: dict[str, object]) -> None:
    encoders = FakeEncoders()
    encoders.model = build_model(model_channels=32)
    wired, data = (
        WiredClips(latents=[{"samples": torch.ones(3, 4, 4, 4)}]),
        replace(DATA, width=64, height=64, **chosen),
    )
    with pytest.raises(ValueError, match=f"{[*chosen][0]} is of pictures, but latents are connected"):
        wired.encoded(data, 1, encoders, lambda *told: None)
    encoded(WiredClips(images=[shots(4)]), data=data)


def test_clips_of_which_none_moves_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    plan = AdaptorPlan(None)
    settings = RunSettings.from_values({"frames": 3})
    for images, asked, told in (([shots(1)] * 6, 4, True), ([shots(1), shots(4)], 4, False), ([shots(4)], 0, False)):
        caplog.clear()
        plan.clips(encoded(WiredClips(images=images), asked), settings, Path(), FakeEncoders, lambda *_: None)
        assert ("None of the clips moves" in caplog.text) is told
    caplog.clear()
    still = encoded(WiredClips(images=[shots(1)]))
    plan.clips(still, RunSettings.from_values({"frames": 1}), Path(), FakeEncoders, lambda *_: None)
    assert not caplog.text, "one frame is what was asked for"


class NoFile:
    """An autoencoder as the host makes it of a checkpoint that has none."""

    first_stage_model = None


@pytest.mark.parametrize(
    ("clip", "vae", "missing"), [(None, object(), "text encoder"), (object(), NoFile(), "autoencoder")]
)
def test_an_encoder_that_a_checkpoint_lacks_is_named(clip: object, vae: object, missing: str) -> None:
    with pytest.raises(ValueError, match=f"has got no {missing}: .*Load one by itself"):
        encoders_of(None, clip, vae)
