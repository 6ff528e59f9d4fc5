"""Run states, shards, caches and settings that are damaged, or were made to do damage: a sentence, and no memory."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from fake_encoders import FakeEncoders
from magicvideo.adaptor_unet.training.data.cache_files import ContentHashes, read_rates, read_tensor
from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.latent_cache import LatentCache
from magicvideo.adaptor_unet.training.data.latent_clip import LatentClip, MemoryClips
from magicvideo.adaptor_unet.training.data.shards import EMPTY_TEXT, INDEX, ShardClips, write_shards
from magicvideo.adaptor_unet.training.run_state import RunState, StateError, go_on
from magicvideo.adaptor_unet.training.settings import RunSettings
from magicvideo.adaptor_unet.training.settings_text import parse_toml, read_toml
from magicvideo.adaptor_unet.training.trainables import MovingAverage

DEEP = "[" * 100_000 + "]" * 100_000


def state() -> RunState:
    weight = torch.nn.Parameter(torch.ones(2, 3))
    optimiser = torch.optim.AdamW([weight])
    weight.grad = torch.ones(2, 3)
    optimiser.step()
    return RunState({"w": weight}, MovingAverage({"w": weight}, 0.9), optimiser, {"seed": 1}, 4)


STATES = {
    "deep identity": ({}, {"identity": DEEP}),
    "null identity": ({}, {"identity": "null"}),
    "identity of another kind": ({}, {"identity": "[1]"}),
    "no identity": ({}, {"identity": "{"}),
    "negative step": ({}, {"step": "-5"}),
    "step without end": ({}, {"step": "1" + "0" * 30}),
    "step that is no number": ({}, {"step": "null"}),
    "average missing": ({"average.w": None}, {}),
    "average misshapen": ({"average.w": torch.ones(3, 2)}, {}),
    "weights misshapen": ({"trained.w": torch.ones(2)}, {}),
    "weights of whole numbers": ({"trained.w": torch.ones(2, 3).int()}, {}),
    "weights not finite": ({"trained.w": torch.full((2, 3), torch.nan)}, {}),
    "optimiser in part": ({"optimiser.w.exp_avg": None}, {}),
    "optimiser misshapen": ({"optimiser.w.exp_avg_sq": torch.ones(7)}, {}),
    "optimiser's step misshapen": ({"optimiser.w.step": torch.ones(7)}, {}),
    "optimiser's step negative": ({"optimiser.w.step": torch.tensor(-5.0)}, {}),
}


@pytest.mark.parametrize("name", STATES)
def test_a_damaged_state_is_named_passed_over_and_changes_nothing(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    tensors, told = STATES[name]
    run = state()
    path = run.save(tmp_path, 2)
    written = {name: tensor for name, tensor in (load_file(path) | tensors).items() if tensor is not None}
    save_file(written, path, {"step": "4", "identity": '{"seed": 1}'} | told)
    run.step = 0
    before = run.parameters["w"].clone()
    with pytest.raises(StateError, match="step-00000004.state is damaged"):
        run.load(path)
    assert not go_on(run, tmp_path) and "is damaged" in caplog.text
    assert run.step == 0 and torch.equal(run.parameters["w"], before)


def test_a_sound_state_is_gone_on_from(tmp_path: Path) -> None:
    run = state()
    run.save(tmp_path, 2)
    run.step = 0
    assert go_on(run, tmp_path) and run.step == 4


def clip(**changes: object) -> LatentClip:
    made = {"latents": torch.ones(2, 4, 6, 8), "fps": 8.0, "text": torch.zeros(3, 5), "caption": "a"}
    return LatentClip(**made | changes)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_shards(MemoryClips((clip(), clip())), tmp_path / "shards", torch.zeros(3, 5))
    return tmp_path / "shards"


def test_sound_shards_are_read(shards: Path) -> None:
    assert [item.fps for item in (ShardClips(shards)[0], ShardClips(shards)[1])] == [8.0, 8.0]


INDEXES = [
    "null",
    "[]",
    DEEP,
    '{"shardlist": null}',
    '{"shardlist": [null]}',
    '{"shardlist": [{"url": "clips-000000.tar", "nsamples": 100000000000000000000}]}',
    '{"shardlist": [{"url": "clips-000000.tar", "nsamples": -1}]}',
    '{"shardlist": [{"url": "clips-000000.tar", "nsamples": 1e999}]}',
    '{"shardlist": [{"url": "clips-000000.tar", "nsamples": null}]}',
    '{"shardlist": [{"url": "' + "x" * 300 + '", "nsamples": 2}]}',
    '{"shardlist": [{"url": "a\\u0000b", "nsamples": 2}]}',
]


@pytest.mark.parametrize("place", range(len(INDEXES)))
def test_a_damaged_index_is_refused_by_name(shards: Path, place: int) -> None:
    (shards / INDEX).write_text(INDEXES[place])
    with pytest.raises(ValueError, match="index.json"):
        ShardClips(shards)


def tar_of(path: Path, tensors: bytes, told: bytes) -> None:
    with tarfile.open(path, "w") as tar:
        for place in range(2):
            for ending, content in (("safetensors", tensors), ("json", told)):
                member = tarfile.TarInfo(f"{place}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


SOUND = {"latents": torch.ones(2, 4, 6, 8), "text": torch.zeros(3, 5)}
ITEMS = {
    "channels": (SOUND | {"latents": torch.zeros(2, 16, 6, 8)}, '{"fps": 8, "caption": ""}'),
    "no frames": (SOUND | {"latents": torch.zeros(0, 4, 6, 8)}, '{"fps": 8, "caption": ""}'),
    "flat": (SOUND | {"latents": torch.zeros(8)}, '{"fps": 8, "caption": ""}'),
    "not finite": (SOUND | {"latents": torch.full((2, 4, 6, 8), torch.inf)}, '{"fps": 8, "caption": ""}'),
    "text": (SOUND | {"text": torch.zeros(3, 9)}, '{"fps": 8, "caption": ""}'),
    "all zeros": (SOUND | {"latents": torch.zeros(2, 4, 6, 8)}, '{"fps": 8, "caption": ""}'),
    "other values": (SOUND, '{"fps": 8, "caption": "", "content": "of others"}'),
    "missing": ({"text": torch.zeros(3, 5)}, '{"fps": 8, "caption": ""}'),
    "negative rate": (SOUND, '{"fps": -8, "caption": ""}'),
    "no rate": (SOUND, '{"fps": null, "caption": ""}'),
    "rate without end": (SOUND, '{"fps": 1e999, "caption": ""}'),
    "null": (SOUND, "null"),
    "deep": (SOUND, DEEP),
}


@pytest.mark.parametrize("name", ITEMS)
def test_a_damaged_item_of_a_shard_is_refused_by_name(shards: Path, name: str) -> None:
    tensors, told = ITEMS[name]
    tar_of(shards / "clips-000000.tar", save(tensors), told.encode())
    with pytest.raises(ValueError, match=r"Item 0 in .*clips-000000.tar cannot be read"):
        ShardClips(shards)[0]


def test_a_flipped_bit_in_a_shard_is_noticed(shards: Path) -> None:
    for name, words in (("clips-000000.tar", "Item 1 in"), (EMPTY_TEXT, "is damaged")):
        path = shards / name
        raw = bytearray(path.read_bytes())
        at = raw.rindex(b"\0\0\x80?") + 2 if name.endswith("tar") else len(raw) - 2
        raw[at] ^= 1
        path.write_bytes(raw)
        with pytest.raises(ValueError, match=f"{words}.*{name}|{name}.*{words}") as caught:
            ShardClips(shards)[1]
        assert "its values are not those that were written" in str(caught.value)


@pytest.mark.parametrize("size", [2**40, 2**62])
def test_a_member_that_says_it_is_huge_takes_no_memory(shards: Path, size: int) -> None:
    path = shards / "clips-000000.tar"
    headers = b""
    for ending in ("safetensors", "json"):
        member = tarfile.TarInfo(f"0.{ending}")
        member.size = size
        headers += member.tobuf(tarfile.GNU_FORMAT) + b"\0" * 512
    path.write_bytes(headers + b"\0" * 8192)
    with pytest.raises(ValueError, match="clips-000000.tar is damaged"):
        ShardClips(shards)[0]


def test_a_sparse_member_takes_no_memory(shards: Path) -> None:
    path = shards / "clips-000000.tar"
    told = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(2**40), "GNU.sparse.map": "0,512"}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("0.safetensors", "0.json", "1.safetensors", "1.json"):
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 512, told
            tar.addfile(member, io.BytesIO(b"\0" * 512))
    with pytest.raises(ValueError, match="clips-000000.tar is damaged"):
        ShardClips(shards)[0]


@pytest.mark.parametrize("rates", ["null", DEEP, "[-8.0]", "[]", "[8, 8]", '["8"]', "[1e999]", "8"])
def test_a_cache_file_that_is_not_sound_is_made_anew(tmp_path: Path, rates: str) -> None:
    save_file({"0": torch.zeros(2, 4, 6, 8)}, tmp_path / "a.safetensors", {"magicvideo.fps": rates})
    assert read_rates(tmp_path / "a.safetensors") is None


TEXTS = [{}, {"other": torch.ones(3, 5)}, {"text": torch.ones(5)}, {"text": torch.ones(1, 3, 5)}]
TEXTS += [{"text": torch.ones(0, 5)}, {"text": torch.tensor(1.0)}]


@pytest.mark.parametrize("place", range(len(TEXTS)))
def test_an_embedding_in_the_cache_that_is_none_is_made_anew(tmp_path: Path, place: int) -> None:
    cache = LatentCache(tmp_path, DataSettings(), "weights", FakeEncoders)
    path = cache.text("a wave", lambda: None)
    expected = read_tensor(path, "text")
    save_file(TEXTS[place], path)
    assert torch.equal(read_tensor(cache.text("a wave", lambda: None), "text"), expected)


def test_what_lacks_a_tensor_is_deleted_so_that_the_next_start_makes_it_anew(tmp_path: Path) -> None:
    save_file({"other": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a.safetensors of the cache cannot be read.*Start again"):
        read_tensor(tmp_path / "a.safetensors", "text")
    assert not (tmp_path / "a.safetensors").exists()


def test_a_memory_of_contents_that_is_damaged_is_not_believed(tmp_path: Path) -> None:
    clip_file = tmp_path / "a.mp4"
    clip_file.write_bytes(b"a")
    right = ContentHashes(tmp_path / "none.json").of([clip_file])
    seen = [clip_file.stat().st_size, clip_file.stat().st_mtime_ns]
    for known in (seen, [*seen, None], [*seen, [1]], None, "x"):
        (tmp_path / "memory.json").write_text(json.dumps({str(clip_file): known}))
        assert ContentHashes(tmp_path / "memory.json").of([clip_file]) == right


TOML = ["parts = " + "[" * 5000 + "]" * 5000, "parts = 3", "parts = 2020-01-01", "steps = 'x'", "steps = [1]"]
TOML += ["fps_min = 1" + "0" * 400, "fps_min = nan", "a = {b = {c = 1}}", "init = [1]", "steps = inf", "parts = [[]]"]
TOML += ["steps = 1" + "0" * 5000, "\0", "[[a]]", "rank = true", "start = 1"]


@pytest.mark.parametrize("place", range(len(TOML)))
def test_odd_toml_ends_in_a_sentence(tmp_path: Path, place: int) -> None:
    (tmp_path / "a.toml").write_text(TOML[place])
    with pytest.raises(ValueError) as caught:
        RunSettings.from_values(read_toml(tmp_path / "a.toml"))
    assert len(str(caught.value)) < 1500


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["steps", "parts", "init", "fps_min", "width", "seed", "crop", "start", "flip", "ema"])


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(NAMES, VALUES, max_size=3))
def test_settings_of_any_type_are_taken_or_refused_in_a_sentence(values: dict) -> None:
    try:
        RunSettings.from_values(values)
    except ValueError as error:
        assert str(error)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(alphabet="ab=[]{}\"'\n.#1 ,-", max_size=40))
def test_any_text_is_settings_or_a_sentence(text: str) -> None:
    try:
        parse_toml(text)
    except ValueError as error:
        assert str(error)
