"""Saving and loading: exact, never half done; and every other file refused with a sentence that helps.

Row 22 of the test cases: hostile and broken files.
"""

import copy
import dataclasses
import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from magicvideo.adaptor_unet import checkpoint, tensor_file, whole_file
from magicvideo.adaptor_unet.adaptor import AdaptorConfig, VideoAdaptor
from magicvideo.adaptor_unet.checkpoint import AdaptorFileError, load, save

NAME = "frame.input_blocks.0.0.scale"
SHAPE = [4, 8]

Header = dict[str, Any]
Edit = Callable[[Header, bytes], tuple[Header, bytes]]


@pytest.fixture
def good(tmp_path: Path, trained_small: VideoAdaptor) -> Path:
    return save(trained_small, tmp_path / "adaptor.safetensors")


def parts(path: Path) -> tuple[Header, bytes]:
    """Header and tensor bytes of a safetensors file."""
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8:end]), content[end:]


def assemble(header: Header | bytes, body: bytes) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + body


def changed(path: Path, edit: Edit) -> Path:
    path.write_bytes(assemble(*edit(*parts(path))))
    return path


def with_settings(header: Header, **change: object) -> Header:
    """The header with other adaptor settings in its metadata."""
    found = json.loads(header["__metadata__"]["magicvideo.config"]) | change
    return with_metadata(header, **{"magicvideo.config": json.dumps(found)})


def with_metadata(header: Header, **change: str) -> Header:
    return header | {"__metadata__": header["__metadata__"] | change}


def with_tensor(header: Header, name: str = NAME, **change: object) -> Header:
    return header | {name: header[name] | change}


def same(one: nn.Module, other: nn.Module) -> bool:
    left, right = one.state_dict(), other.state_dict()
    return set(left) == set(right) and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


def refusal(path: Path) -> str:
    with pytest.raises(AdaptorFileError) as caught:
        load(path)
    return str(caught.value)


# Saving, and loading what was saved


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_save_then_load_is_exact(tmp_path: Path, trained_small: VideoAdaptor, dtype: torch.dtype) -> None:
    adaptor = trained_small.to(dtype)
    loaded = load(save(adaptor, tmp_path / "a.safetensors"))
    assert same(loaded, adaptor) and loaded.config == adaptor.config
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}


@pytest.mark.parametrize("part", ["frame", "spatial", "temporal", "fps"])
def test_an_adaptor_of_one_part_survives(tmp_path: Path, small_config: AdaptorConfig, part: str) -> None:
    adaptor = VideoAdaptor(dataclasses.replace(small_config, parts=(part,), rank=2, rotary=True))
    loaded = load(save(adaptor, tmp_path / "a.safetensors"))
    assert same(loaded, adaptor) and loaded.config == adaptor.config


def test_a_loaded_adaptor_is_frozen_and_takes_the_given_operations(good: Path, trained_small: VideoAdaptor) -> None:
    class Operations:
        class Linear(nn.Linear):
            pass

    read = load(good)
    loaded = checkpoint.with_tensors(read.config, read.state_dict(), read.metadata, Operations)
    assert same(read, trained_small) and same(loaded, trained_small)
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in loaded.parameters())
    assert all(type(module) is Operations.Linear for module in loaded.modules() if isinstance(module, nn.Linear))


def test_tensors_that_are_not_contiguous_are_saved(tmp_path: Path, trained_small: VideoAdaptor) -> None:
    trained_small.fps.outer.weight.data = trained_small.fps.outer.weight.data.mT
    assert same(load(save(trained_small, tmp_path / "a.safetensors")), trained_small)


def test_a_loaded_adaptor_does_not_need_its_file_any_more(good: Path, trained_small: VideoAdaptor) -> None:
    loaded = load(good)
    with good.open("r+b") as file:
        file.write(b"\0" * good.stat().st_size)
    assert same(loaded, trained_small)


def test_metadata_is_kept_through_save_load_and_save(tmp_path: Path, trained_small: VideoAdaptor) -> None:
    first = load(save(trained_small, tmp_path / "1.safetensors", {"modelspec.title": "Wave", "steps": "400"}))
    assert first.metadata["modelspec.title"] == "Wave" and first.metadata["steps"] == "400"
    second = load(save(first, tmp_path / "2.safetensors", {"modelspec.title": "Great Wave", "é": "\n\u732b"}))
    told = {name: second.metadata[name] for name in ("modelspec.title", "steps", "é")}
    assert told == {"modelspec.title": "Great Wave", "steps": "400", "é": "\n\u732b"}


def test_metadata_cannot_replace_what_the_file_says_of_itself(tmp_path: Path, trained_small: VideoAdaptor) -> None:
    path = save(trained_small, tmp_path / "a.safetensors", {"magicvideo.version": "9", "magicvideo.config": "{}"})
    assert same(load(path), trained_small)


def test_the_file_says_what_it_is(good: Path, small_config: AdaptorConfig) -> None:
    with safe_open(good, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["magicvideo.format"] == "adaptor" and metadata["magicvideo.version"] == "1"
    assert AdaptorConfig.from_json(metadata["magicvideo.config"]) == small_config
    assert metadata["modelspec.sai_model_spec"] == "1.0.1"
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1/magicvideo-adaptor"
    assert {"modelspec.implementation", "modelspec.date", "format"} <= set(metadata)


def test_folders_are_made(tmp_path: Path, trained_small: VideoAdaptor) -> None:
    path = save(trained_small, tmp_path / "my" / "motion" / "a.safetensors")
    assert same(load(path), trained_small)


def test_an_existing_file_is_not_overwritten_unasked(good: Path, trained_small: VideoAdaptor) -> None:
    before = good.read_bytes()
    with pytest.raises(FileExistsError, match="exists already"):
        save(trained_small, good, {"other": "metadata"})
    assert good.read_bytes() == before and os.listdir(good.parent) == [good.name]
    save(trained_small, good, {"other": "metadata"}, overwrite=True)
    assert good.read_bytes() != before and os.listdir(good.parent) == [good.name]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_finite_is_not_saved(good: Path, trained_small: VideoAdaptor, overwrite: bool) -> None:
    before, name = good.read_bytes(), next(iter(trained_small.state_dict()))
    broken = copy.deepcopy(trained_small)
    broken.state_dict()[name].view(-1)[0] = torch.nan
    with pytest.raises(ValueError, match=f"not saved: {name} has values that are not finite"):
        save(broken, good if overwrite else good.with_name("new.safetensors"), overwrite=overwrite)
    assert good.read_bytes() == before and os.listdir(good.parent) == [good.name]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_a_file_made_meanwhile_by_another_is_not_overwritten(
    tmp_path: Path, trained_small: VideoAdaptor, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    path = tmp_path / "a.safetensors"

    def slow(tensors: dict, written: Path, metadata: dict) -> None:
        save_file(tensors, written, metadata)
        path.write_bytes(b"somebody else's")

    monkeypatch.setattr(whole_file, "save_file", slow)
    if not links:
        monkeypatch.setattr(checkpoint.os, "link", no_links)
    with pytest.raises(FileExistsError, match=r"a\.safetensors"):
        save(trained_small, path)
    assert path.read_bytes() == b"somebody else's" and os.listdir(tmp_path) == [path.name]


def test_metadata_is_saved_as_long_as_it_can_be_loaded_and_refused_beyond(
    tmp_path: Path, trained_small: VideoAdaptor
) -> None:
    most = tensor_file.MOST_HEADER_BYTES
    path = save(trained_small, tmp_path / "a.safetensors", {"modelspec.title": "t" * (most - 2**16)})
    assert load(path).metadata["modelspec.title"] == "t" * (most - 2**16)
    with pytest.raises(ValueError, match=r"b\.safetensors would have a header of \d+ bytes.*shorten title"):
        save(trained_small, tmp_path / "b.safetensors", {"modelspec.title": "t" * most})
    assert os.listdir(tmp_path) == [path.name]


def no_links(source: Path, target: Path) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_file_system_without_links_will_do(
    tmp_path: Path, trained_small: VideoAdaptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint.os, "link", no_links)
    assert same(load(save(trained_small, tmp_path / "a.safetensors")), trained_small)
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=str)
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_failed_write_leaves_the_folder_as_it_was(
    good: Path,
    trained_small: VideoAdaptor,
    monkeypatch: pytest.MonkeyPatch,
    failure: BaseException,
    overwrite: bool,
) -> None:
    def failing(tensors: dict, written: Path, metadata: dict) -> None:
        written.write_bytes(b"half of it")
        raise failure

    before = good.read_bytes()
    monkeypatch.setattr(whole_file, "save_file", failing)
    with pytest.raises(type(failure)):
        save(trained_small, good if overwrite else good.with_name("new.safetensors"), overwrite=overwrite)
    assert good.read_bytes() == before and os.listdir(good.parent) == [good.name]


# Files that are something else


OTHER_FILES = {
    "web page": (b"<!DOCTYPE html><html><body>Please sign in</body></html>", "a web page"),
    "json": (b'{"error": "Repository not found"}', "a JSON file"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "a Git LFS pointer"),
    "empty": (b"", "an empty file"),
    "one byte": (b"\x07", "no safetensors file"),
    "eight bytes": (struct.pack("<Q", 2), "no safetensors file"),
    "zeros": (b"\0" * 4096, "no safetensors file"),
    "text": (b"hello, this is a readme", "no safetensors file"),
    "header of 2^60": (struct.pack("<Q", 2**60) + b'{"a":1}', "is cut short or damaged: its header wants"),
    "header of 2^64-1": (struct.pack("<Q", 2**64 - 1) + b"{}", "is cut short or damaged: its header wants"),
    "header of 2^60, no brace": (struct.pack("<Q", 2**60) + b"\0" * 99, "no safetensors file"),
    "header of nothing": (struct.pack("<Q", 0) + b"{}", "cannot be read as safetensors"),
    "header is no json": (assemble(b"{]}", b""), "cannot be read as safetensors"),
    "header is not utf-8": (assemble(b'{"\xff": 1}', b""), "cannot be read as safetensors"),
    "header nested deeply": (assemble(b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b""), "cannot be read as safetensors"),
    "no tensors": (assemble({}, b""), "unknown kind with 0 tensors"),
}


@pytest.mark.parametrize("case", OTHER_FILES)
def test_a_file_that_is_no_safetensors_is_refused_with_its_kind(tmp_path: Path, case: str) -> None:
    content, kind = OTHER_FILES[case]
    path = tmp_path / "my adaptor.safetensors"
    path.write_bytes(content)
    message = refusal(path)
    assert message.startswith("my adaptor.safetensors ") and kind in message
    assert "expected a MagicVideo adaptor" in message and "Save MagicVideo Adaptor" in message


@pytest.mark.parametrize("zipped", [True, False])
def test_a_renamed_pickle_is_refused_and_never_run(tmp_path: Path, zipped: bool) -> None:
    class Payload:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "run"),)

    path = tmp_path / "a.safetensors"
    torch.save({"weight": Payload()}, path, _use_new_zipfile_serialization=zipped)
    assert "a pickled PyTorch file" in refusal(path)
    path.write_bytes(pickle.dumps(Payload()))
    assert "a pickled PyTorch file" in refusal(path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "a LoRA"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a full checkpoint"),
        ("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight", "an AnimateDiff motion module"),
        ("control_model.zero_convs.0.0.weight", "a ControlNet"),
        ("whatever", "a safetensors file of an unknown kind with 1 tensors"),
    ],
)
@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_another_kind_of_safetensors_is_named(
    tmp_path: Path, key: str, kind: str, metadata: dict[str, str] | None
) -> None:
    path = tmp_path / "a.safetensors"
    save_file({key: torch.ones(2)}, path, metadata)
    assert refusal(path).startswith(f"a.safetensors seems to be {kind}; expected a MagicVideo adaptor")


def test_a_motion_module_is_sent_to_its_own_node(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"mid_block.motion_modules.0.temporal_transformer.norm.weight": torch.ones(2)}, path)
    assert refusal(path).endswith("expected a MagicVideo adaptor. Use the node Load Motion Module.")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "gone.safetensors is not there" in refusal(tmp_path / "gone.safetensors")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert f"{tmp_path} is not there" in refusal(tmp_path)


def test_a_name_that_is_not_utf8_is_refused(good: Path) -> None:
    try:
        path = good.rename(good.with_name("\udcff.safetensors"))
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    assert "cannot be read as safetensors" in refusal(path)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(19, "No such device")], ids=str)
def test_a_file_that_the_system_does_not_give_is_refused(
    good: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def failing(*args: object, **kwargs: object) -> None:
        raise error

    for place, name in ((tensor_file, "safe_open"), (Path, "open")):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, failing)
            message = refusal(good)
        assert message.startswith("adaptor.safetensors cannot be read as safetensors") and error.strerror in message


# Adaptor files that are damaged or were tampered with


def half(header: Header, body: bytes) -> tuple[Header, bytes]:
    return header, body[: len(body) // 2]


def first_value(raw: bytes) -> Edit:
    """Replaces the first bytes of the first tensor in the file."""
    return lambda header, body: (header, raw + body[len(raw) :])


def swapped_shape(header: Header, body: bytes) -> tuple[Header, bytes]:
    return with_tensor(header, shape=SHAPE[::-1]), body


def overlapping(header: Header, body: bytes) -> tuple[Header, bytes]:
    other = next(name for name in header if header[name].get("shape") == SHAPE and name != NAME)
    return with_tensor(header, data_offsets=header[other]["data_offsets"]), body


def extra_key(name: str) -> Edit:
    def edit(header: Header, body: bytes) -> tuple[Header, bytes]:
        ends = [len(body), len(body) + 4]
        return header | {name: {"dtype": "F32", "shape": [1], "data_offsets": ends}}, body + b"\0" * 4

    return edit


def renamed(header: Header, body: bytes) -> tuple[Header, bytes]:
    return {name.replace(NAME, "frame.input_blocks.2.0.scale"): value for name, value in header.items()}, body


def of_dtype(dtype: str, size: int) -> Edit:
    """All tensors as zeros of another dtype."""

    def edit(header: Header, body: bytes) -> tuple[Header, bytes]:
        out, end = {"__metadata__": header["__metadata__"]}, 0
        for name in header.keys() - out.keys():
            start, end = end, end + size * torch.Size(header[name]["shape"]).numel()
            out[name] = header[name] | {"dtype": dtype, "data_offsets": [start, end]}
        return out, b"\0" * end

    return edit


def told(**change: str) -> Edit:
    return lambda header, body: (with_metadata(header, **{f"magicvideo.{k}": v for k, v in change.items()}), body)


def configured(**change: object) -> Edit:
    return lambda header, body: (with_settings(header, **change), body)


def many_sites(count: int, channels: int = 8) -> list[dict]:
    return [
        {"name": f"input_blocks.{i}.0.transformer_blocks.0", "kind": "transformer", "channels": channels}
        for i in range(count)
    ]


DAMAGED: dict[str, tuple[Edit, str]] = {
    "tensors cut in half": (half, "cannot be read as safetensors"),
    "bytes behind the end": (lambda h, b: (h, b + b"PK\x03\x04"), "cannot be read as safetensors"),
    "one wrong shape": (swapped_shape, f"has shape [8, 4] for {NAME}, where [4, 8] was expected"),
    "shape of 2^40": (lambda h, b: (with_tensor(h, shape=[2**40]), b), "cannot be read as safetensors"),
    "shape of 2^126": (lambda h, b: (with_tensor(h, shape=[2**63, 2**63]), b), "cannot be read as safetensors"),
    "negative shape": (lambda h, b: (with_tensor(h, shape=[-4, -8]), b), "cannot be read as safetensors"),
    "overlapping tensors": (overlapping, "cannot be read as safetensors"),
    "offsets past the end": (
        lambda h, b: (with_tensor(h, data_offsets=[2**40, 2**40 + 128]), b),
        "cannot be read as safetensors",
    ),
    "NaN": (first_value(struct.pack("<f", float("nan"))), "that are not finite"),
    "infinity": (first_value(struct.pack("<f", float("-inf"))), "that are not finite"),
    "double underscores": (extra_key("frame.__class__.__init__.__globals__"), "has 1 unknown ones"),
    "extra tensor": (extra_key("frame.input_blocks.9.0.op.scale"), "lacks 0 tensors [] and has 1 unknown ones"),
    "dotted mess": (extra_key("..frame...scale."), "has 1 unknown ones"),
    "tensor renamed": (renamed, f"lacks 1 tensors ['{NAME}'] and has 1 unknown ones"),
    "float64": (of_dtype("F64", 8), "not finite numbers of 32 or 16 bits"),
    "int32": (of_dtype("I32", 4), "not finite numbers of 32 or 16 bits"),
    "int8": (of_dtype("I8", 1), "not finite numbers of 32 or 16 bits"),
    "bool": (of_dtype("BOOL", 1), "not finite numbers of 32 or 16 bits"),
    "float8": (of_dtype("F8_E4M3", 1), "not finite numbers of 32 or 16 bits"),
    "complex": (of_dtype("C64", 8), "not finite numbers of 32 or 16 bits"),
    "unknown dtype": (of_dtype("Q4_0", 1), "cannot be read as safetensors"),
    "no metadata": (lambda h, b: ({k: v for k, v in h.items() if k != "__metadata__"}, b), "seems to be"),
    "metadata of numbers": (lambda h, b: (h | {"__metadata__": {"a": 1}}, b), "cannot be read as safetensors"),
    "other format": (told(format="upscaler"), "seems to be"),
    "newer version": (told(version="2"), "has adaptor version '2'; this pack reads version '1'. Update the pack."),
    "absurd version": (told(version="9" * 10**5), "has adaptor version '99999"),
    "no settings": (told(config=""), "has settings that cannot be read"),
    "settings are no json": (told(config="{"), "has settings that cannot be read"),
    "settings are a list": (told(config="[]"), "settings must be exactly"),
    "settings nested deeply": (told(config="[" * 100_000), "has settings that cannot be read"),
    "settings nested deeply in a field": (
        lambda h, b: (
            with_metadata(h, **{"magicvideo.config": '{"frames":' + "[" * 90_000 + "]" * 90_000 + "}"}),
            b,
        ),
        "has settings that cannot be read",
    ),
    "number of 5000 digits": (told(config='{"frames": ' + "9" * 5000 + "}"), "has settings that cannot be read"),
    "frames 1024": (configured(frames=1024), f"has shape [4, 8] for {NAME}, where [1024, 8] was expected"),
    "frames 10^9": (configured(frames=10**9), "frames must be a whole number from 1 to 1024"),
    "frames NaN": (configured(frames=float("nan")), "frames must be a whole number"),
    "frames a long text": (configured(frames="x" * 10**6), "frames must be a whole number"),
    "channels 65536": (
        configured(sites=[{"name": "input_blocks.0.0", "kind": "convolution", "channels": 65_536}]),
        "lacks 0 tensors",
    ),
    "1024 sites": (configured(sites=many_sites(1024)), "lacks 7168 tensors"),
    "1025 sites": (configured(sites=many_sites(1025)), "sites must be 1 to 1024 different places"),
    "site of another kind": (configured(sites=[{"name": "x", "kind": "y", "channels": 1}]), "no such place in a UNet"),
    "site names are lists": (configured(sites=[{"name": [], "kind": {}, "channels": []}]), "no such place in a UNet"),
    "parts are lists": (configured(parts=[[]]), "parts must be some of"),
    "part left out": (configured(parts=["frame"]), "lacks 0 tensors [] and has 11 unknown ones"),
    "another rank": (configured(rank=2), "lacks 4 tensors"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_adaptor_is_refused_with_the_reason(good: Path, case: str) -> None:
    edit, reason = DAMAGED[case]
    message = refusal(changed(good, edit))
    assert message.startswith("adaptor.safetensors ") and reason in message
    assert len(message) < 600, "whatever the file holds, the message can be read"


@pytest.mark.parametrize("cut", [1, 100, 1000, 2000, 3000])
def test_a_file_cut_short_is_refused(good: Path, cut: int) -> None:
    good.write_bytes(good.read_bytes()[:-cut])
    message = refusal(good)
    assert "cut short" in message or "cannot be read as safetensors" in message


def test_200_000_tiny_tensors_are_refused_by_the_size_of_the_header(good: Path) -> None:
    header, body = parts(good)
    for i in range(200_000):
        header[f"t{i}"] = {"dtype": "U8", "shape": [1], "data_offsets": [len(body) + i, len(body) + i + 1]}
    good.write_bytes(assemble(header, body + b"\0" * 200_000))
    assert "far more than an adaptor needs" in refusal(good)


def test_equal_keys_in_the_header_are_refused_or_harmless(good: Path, trained_small: VideoAdaptor) -> None:
    header, body = parts(good)
    raw = json.dumps(header)
    twice = raw[:-1] + "," + json.dumps({NAME: header[NAME]})[1:]
    good.write_bytes(assemble(twice.encode(), body))
    assert same(load(good), trained_small)
    good.write_bytes(assemble((raw[:-1] + ', "__metadata__": {}}').encode(), body))
    assert "cannot be read as safetensors" in refusal(good)


def test_equal_keys_in_the_settings_are_checked_like_one(good: Path) -> None:
    config = parts(good)[0]["__metadata__"]["magicvideo.config"]
    changed(good, told(config=config[:-1] + ', "frames": 5}'))
    assert "where [5, 8] was expected" in refusal(good)


def test_a_refused_file_is_left_as_it_was(good: Path) -> None:
    changed(good, swapped_shape)
    before = good.read_bytes()
    refusal(good)
    assert good.read_bytes() == before and os.listdir(good.parent) == [good.name]


MEASURE = """
import importlib.util, pathlib, resource, sys
spec = importlib.util.spec_from_file_location("loader", sys.argv[1])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
from magicvideo.adaptor_unet.checkpoint import AdaptorFileError, load
good, *bad = map(pathlib.Path, sys.argv[2:])
load(good)
size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 2**31, -1))  # so that a failure harms nobody
for path in bad:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        load(path)
    except AdaptorFileError:
        print(path.stem, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is told in other units, or not at all")
def test_refusing_a_file_takes_little_memory(good: Path) -> None:
    """Files of some kilobytes whose claims would take tera- and exabytes: refused within 64 MiB."""
    claims = {claim: DAMAGED[claim][0] for claim in ("shape of 2^40", "frames 1024", "frames 10^9", "channels 65536")}
    claims["1024 wide sites"] = configured(sites=many_sites(1024, 65_536), frames=1024, heads=1)
    paths = []
    for claim, edit in claims.items():
        paths.append(good.with_name(f"{claim.replace(' ', '-')}.safetensors"))
        paths[-1].write_bytes(assemble(*edit(*parts(good))))
    paths.append(good.with_name("header.safetensors"))
    paths[-1].write_bytes(OTHER_FILES["header of 2^60"][0])
    loader = Path(__file__).parents[2] / "bin" / "pack.py"
    command = [sys.executable, "-c", MEASURE, str(loader), str(good), *map(str, paths)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    grown = {name: int(mebibytes) for name, mebibytes in map(str.split, lines)}
    assert len(grown) == len(paths)
    assert max(grown.values()) < 64, grown


# Whatever else may happen to a file


def check_refused_or_sound(path: Path) -> None:
    """Any other exception fails the test."""
    try:
        adaptor = load(path)
    except AdaptorFileError as error:
        assert path.name in str(error)
        return
    expected = VideoAdaptor(adaptor.config, device="meta").state_dict()
    found = adaptor.state_dict()
    assert {name: x.shape for name, x in found.items()} == {name: x.shape for name, x in expected.items()}
    assert all(x.dtype in tensor_file.FLOATS and x.isfinite().all() for x in found.values())


def with_edits(content: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for kind, place, raw in edits:
        place %= len(content) + 1
        if kind == "cut":
            content = content[:place]
        elif kind == "insert":
            content = content[:place] + raw + content[place:]
        elif kind == "replace":
            content = content[:place] + raw + content[place + len(raw) :]
        elif kind == "delete":
            content = content[:place] + content[place + len(raw) :]
        elif kind == "flip":
            flipped = bytes(byte ^ 1 << len(raw) % 8 for byte in content[place : place + 1])
            content = content[:place] + flipped + content[place + 1 :]
    return content


FUZZ = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["replace", "replace", "insert", "delete", "flip", "cut"]),
        st.one_of(st.integers(0, 40), st.integers(0, 2**16)),
        st.one_of(st.binary(min_size=1, max_size=9), st.sampled_from([b'"', b"}", b"{", b"0", b"9", b",", b"\\u0000"])),
    ),
    min_size=1,
    max_size=3,
)

LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=9),
    st.sampled_from(
        ["F16", "BF16", "F64", "I32", "frame", "fps", "convolution", "input_blocks.1.0.op", "2", "adaptor"]
    ),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@FUZZ
@given(edits=EDITS)
def test_any_changed_bytes_are_refused_or_load_sound(good: Path, edits: list[tuple[str, int, bytes]]) -> None:
    path = good.with_name("changed.safetensors")
    path.write_bytes(with_edits(good.read_bytes(), edits))
    check_refused_or_sound(path)


@FUZZ
@given(data=st.data())
def test_any_changed_header_value_is_refused_or_loads_sound(good: Path, data: st.DataObject) -> None:
    header, body = parts(good)
    entry = header[data.draw(st.sampled_from(sorted(header)))]
    entry[data.draw(st.sampled_from(sorted(entry)))] = data.draw(VALUES)
    path = good.with_name("changed.safetensors")
    path.write_bytes(assemble(header, body))
    check_refused_or_sound(path)


@FUZZ
@given(data=st.data())
def test_any_changed_setting_is_refused_or_loads_sound(good: Path, data: st.DataObject) -> None:
    header, body = parts(good)
    found = json.loads(header["__metadata__"]["magicvideo.config"])
    inside = data.draw(st.sampled_from([found, *found["sites"]]))
    inside[data.draw(st.sampled_from(sorted(inside)))] = data.draw(VALUES)
    path = good.with_name("changed.safetensors")
    path.write_bytes(assemble(with_metadata(header, **{"magicvideo.config": json.dumps(found)}), body))
    check_refused_or_sound(path)


def test_an_adaptor_that_somebody_looks_at_is_written_a_moment_later(
    good: Path, trained_small: VideoAdaptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file, tries = os.replace, []

    def held(source: Path, target: Path) -> None:
        tries.append(source)
        if len(tries) < 3:
            raise PermissionError(13, "another program has it open")
        replace_file(source, target)

    monkeypatch.setattr(whole_file.os, "replace", held)
    monkeypatch.setattr(whole_file, "WAITS", (0.0,) * 4)
    save(trained_small, good, overwrite=True)
    assert len(tries) == 3 and same(load(good), trained_small)
