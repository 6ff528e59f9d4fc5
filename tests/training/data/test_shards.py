"""Shards hold what the folder holds, and are what WebDataset calls shards."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from magicvideo.adaptor_unet.training.data import shards as shards_module
from magicvideo.adaptor_unet.training.data.data_settings import DataSettings
from magicvideo.adaptor_unet.training.data.latent_clip import ClipSet, LatentClip, SourceClip
from magicvideo.adaptor_unet.training.data.shards import ShardClips, write_shards


class Made:
    """A ClipSet in memory: clips of several lengths, one of them a still."""

    def __init__(self, count: int) -> None:
        self.groups = (count,)
        draw = torch.Generator().manual_seed(count)
        self.items = [
            LatentClip(
                torch.randn(1 if place == 2 else 4, 4, 6, 8, generator=draw).half(),
                0.0 if place == 2 else 24 / (place + 1),
                torch.randn(3, 5, generator=draw),
                f'clip "{place}" 고양이.\n',
            )
            for place in range(count)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> LatentClip:
        return self.items[index]


EMPTY = torch.arange(15.0).reshape(3, 5)


def equal(one: LatentClip, other: LatentClip) -> bool:
    return (
        one.latents.dtype == other.latents.dtype
        and torch.equal(one.latents, other.latents)
        and torch.equal(one.text, other.text)
        and (one.fps, one.caption) == (other.fps, other.caption)
    )


def same(one: ClipSet, other: ClipSet) -> bool:
    return len(one) == len(other) and all(equal(one[place], other[place]) for place in range(len(one)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_shards(Made(10), tmp_path / "my shards 猫", EMPTY, items_per_shard=4)
    return tmp_path / "my shards 猫"


def test_shards_give_the_same_items_bit_for_bit(folder: Path) -> None:
    clips = ShardClips(folder)
    assert same(clips, Made(10)) and torch.equal(clips.empty_text, EMPTY)
    assert clips.groups == (4, 4, 2) and len(clips) == 10
    for index in (-1, 10):
        with pytest.raises(IndexError):
            clips[index]


def test_the_index_may_be_given_instead_of_its_folder(folder: Path) -> None:
    assert same(ShardClips(folder / "index.json"), Made(10))


def test_any_order_of_items_will_do(folder: Path) -> None:
    clips, order = ShardClips(folder), [9, 0, 5, 5, 1, 8, 4]
    assert all(equal(clips[place], Made(10)[place]) for place in order)


def test_any_reader_of_webdataset_reads_them(folder: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    urls = [str(folder / row["url"]) for row in json.loads((folder / "index.json").read_text())["shardlist"]]
    made = Made(10)
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert len(samples) == 10
    for place, sample in enumerate(samples):
        tensors, told = load(sample["safetensors"]), json.loads(sample["json"])
        assert equal(LatentClip(tensors["latents"], told["fps"], tensors["text"], told["caption"]), made[place])


def test_shards_that_webdataset_wrote_are_read(tmp_path: Path, folder: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    other = tmp_path / "other"
    other.mkdir()
    clips = ShardClips(folder)
    with webdataset.ShardWriter(str(other / "part-%03d.tar"), maxcount=6, verbose=0) as writer:
        for place in range(len(clips)):
            item = clips[place]
            tensors = shards_module.save({"latents": item.latents, "text": item.text})
            told = {"fps": item.fps, "caption": item.caption}
            writer.write({"__key__": f"set/{place:04d}", "safetensors": tensors, "json": told})
    rows = [{"url": str(other / f"part-{part:03d}.tar"), "nsamples": count} for part, count in enumerate((6, 4))]
    (folder / "index.json").write_text(json.dumps({"shardlist": rows}))
    assert same(ShardClips(folder), Made(10)) and ShardClips(folder).groups == (6, 4)


def test_shards_may_lie_on_several_disks(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "disk 2").mkdir()
    moved = (folder / "clips-000001.tar").rename(tmp_path / "disk 2" / "b.tar")
    index = json.loads((folder / "index.json").read_text())
    index["shardlist"][1]["url"] = str(moved)
    (folder / "index.json").write_text(json.dumps(index))
    assert same(ShardClips(folder), Made(10))


def test_the_same_items_make_the_same_bytes(tmp_path: Path, folder: Path) -> None:
    write_shards(Made(10), tmp_path / "again", EMPTY, items_per_shard=4)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_opening_reads_no_shard_and_an_item_only_its_own_part(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    part = shards_module.read_part
    monkeypatch.setattr(
        shards_module, "read_part", lambda file, start, length: read.append(length) or part(file, start, length)
    )
    clips = ShardClips(folder)
    assert read == []
    clips[7]
    assert len(read) == 2 and sum(read) < (folder / "clips-000001.tar").stat().st_size / 3


def test_only_a_few_tables_of_places_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(Made(12), tmp_path / "s", EMPTY, items_per_shard=1)
    opened = []
    table = shards_module.read_table
    monkeypatch.setattr(shards_module, "read_table", lambda *row: opened.append(row) or table(*row))
    clips = ShardClips(tmp_path / "s")
    assert same(clips, Made(12)) and same(clips, Made(12))
    assert clips.tables.cache_info().currsize == 8 and len(opened) == 24
    clips[11]
    assert len(opened) == 24, "what was used last is still there"


def test_items_are_plain_tensors_also_in_inference_mode(folder: Path) -> None:
    with torch.inference_mode():
        clips = ShardClips(folder)
        item = clips[0]
    assert not item.latents.is_inference() and not item.text.is_inference() and not clips.empty_text.is_inference()


def test_a_folder_with_shards_is_not_written_over(folder: Path) -> None:
    with pytest.raises(ValueError, match="holds shards already. Choose another folder"):
        write_shards(Made(2), folder, EMPTY)
    assert same(ShardClips(folder), Made(10))


@pytest.mark.parametrize(("count", "per_shard"), [(0, 4), (3, 0)])
def test_no_items_make_no_shards(tmp_path: Path, count: int, per_shard: int) -> None:
    with pytest.raises(ValueError, match=f"{count} items in shards of {per_shard}; expected at least one of each"):
        write_shards(Made(count), tmp_path / "s", EMPTY, per_shard)


def test_a_failed_write_leaves_no_index_and_no_half_shard(tmp_path: Path) -> None:
    class Failing(Made):
        def __getitem__(self, index: int) -> LatentClip:
            if index == 6:
                raise OSError(28, "No space left on device")
            return super().__getitem__(index)

    with pytest.raises(OSError, match="No space left"):
        write_shards(Failing(10), tmp_path / "s", EMPTY, items_per_shard=4)
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["clips-000000.tar"]
    write_shards(Made(10), tmp_path / "s", EMPTY, items_per_shard=4)
    assert same(ShardClips(tmp_path / "s"), Made(10))


@pytest.mark.parametrize(
    "index", ["", "[]", "{}", '{"shardlist": [{"url": "a.tar"}]}', '{"shardlist": 3}', "[" * 100_000, "\udcff"]
)
def test_what_is_no_index_is_refused(folder: Path, index: str) -> None:
    (folder / "index.json").write_text(index, errors="surrogateescape")
    with pytest.raises(ValueError, match="index.json is no index of shards"):
        ShardClips(folder)


def test_an_index_without_items_or_shards_is_refused(folder: Path) -> None:
    for rows in ([], [{"url": "clips-000000.tar", "nsamples": 0}]):
        (folder / "index.json").write_text(json.dumps({"shardlist": rows}))
        with pytest.raises(ValueError, match="names a shard without items, or none at all"):
            ShardClips(folder)


SOURCES = (SourceClip(3, True), SourceClip(1, False), SourceClip(6, True))


def test_the_index_tells_which_items_are_of_one_clip_and_the_settings_of_clips(tmp_path: Path) -> None:
    settings = DataSettings(frames=4, caption_prefix="파도,")
    write_shards(Made(10), tmp_path, EMPTY, 4, SOURCES, settings)
    rows = json.loads((tmp_path / "index.json").read_text())["shardlist"]
    assert [row["clips"] for row in rows] == [[[0, 3, True], [1, 1, False]], [[2, 4, True]], [[2, 2, True]]]
    clips = ShardClips(tmp_path)
    assert clips.sources == SOURCES and clips.settings == settings
    assert same(clips, Made(10))


@pytest.mark.parametrize("clips", [3, [[0, 4, True]], [[0, -1, True], [1, 4, True]], [[0]], [[0, "3", True]]])
def test_an_index_whose_clips_are_not_those_of_its_items_is_refused(tmp_path: Path, clips: object) -> None:
    write_shards(Made(3), tmp_path, EMPTY, 4, (SourceClip(3, True),))
    index = json.loads((tmp_path / "index.json").read_text())
    index["shardlist"][0]["clips"] = clips
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index.json is damaged .* Write the shards anew"):
        ShardClips(tmp_path)


@pytest.mark.parametrize("settings", [3, {"frames": "x"}, {"another": 1}])
def test_an_index_with_settings_that_cannot_be_is_refused(tmp_path: Path, settings: object) -> None:
    write_shards(Made(3), tmp_path, EMPTY)
    index = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(index | {"settings": settings}))
    with pytest.raises(ValueError, match=r"settings of clips that cannot be .* Write the shards anew"):
        ShardClips(tmp_path)


def test_missing_shards_are_counted_before_training_begins(folder: Path) -> None:
    (folder / "clips-000001.tar").unlink()
    with pytest.raises(ValueError, match=r"1 of 3 shards of .* are missing, the first is .*clips-000001\.tar"):
        ShardClips(folder)
    with pytest.raises(ValueError, match="is no index of shards"):
        ShardClips(folder / "elsewhere")


def test_a_missing_empty_text_is_refused(folder: Path) -> None:
    path = folder / "empty_text.safetensors"
    path.unlink()
    for content in (None, b"nothing"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match="empty_text.safetensors is damaged .* Write the shards anew"):
            ShardClips(folder)


def test_a_shard_cut_short_is_named(folder: Path) -> None:
    path = folder / "clips-000001.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clips = ShardClips(folder)
    assert equal(clips[0], Made(10)[0])
    with pytest.raises(ValueError, match=r"clips-000001\.tar (is damaged|holds 2 clips, the index says 4)"):
        clips[4]


@pytest.mark.parametrize("content", [b"", b"\0" * 2048, b"hello" * 500])
def test_a_shard_of_another_kind_is_named(folder: Path, content: bytes) -> None:
    (folder / "clips-000000.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"clips-000000\.tar (is damaged|holds 0 clips)"):
        ShardClips(folder)[0]


def test_a_tar_file_of_something_else_is_named(folder: Path) -> None:
    with tarfile.open(folder / "clips-000000.tar", "w") as tar:
        shards_module.add_member(tar, "0.jpg", b"picture")
    with pytest.raises(ValueError, match="holds something else than clips"):
        ShardClips(folder)[0]


def test_a_damaged_item_is_named(folder: Path) -> None:
    path = folder / "clips-000000.tar"
    content = bytearray(path.read_bytes())
    content[512 : 512 + 8] = b"\xff" * 8
    path.write_bytes(content)
    clips = ShardClips(folder)
    with pytest.raises(ValueError, match=r"Item 0 in .*clips-000000\.tar cannot be read"):
        clips[0]
    assert equal(clips[1], Made(10)[1])


def test_compressed_shards_are_refused_rather_than_read_slowly(folder: Path) -> None:
    path = folder / "clips-000000.tar"
    packed = io.BytesIO()
    with tarfile.open(path) as tar, tarfile.open(fileobj=packed, mode="w:gz") as compressed:
        for member in tar:
            compressed.addfile(member, tar.extractfile(member))
    path.write_bytes(packed.getvalue())
    with pytest.raises(ValueError, match="is damaged or holds something else"):
        ShardClips(folder)[0]
