"""What a wrong file seems to be."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from magicvideo.adaptor_unet.file_kind import kind_of_bytes, kind_of_keys


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        (b"\n\n  <html>", "a web page"),
        (b"\xef\xbb\xbf<!DOCTYPE html>", "a web page"),
        (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "a web page"),
        (b'{"error": "Repository not found"}', "a JSON file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a Git LFS pointer"),
        (b"GGUF\x03\x00\x00\x00", "a GGUF model"),
        (b"\x89PNG\r\n\x1a\n", "a picture"),
        (b"", "an empty file"),
        (b" \n\t\n", "an empty file"),
        (pickle.dumps({"a": 1}), "a pickled PyTorch file"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_files_are_known_by_their_first_bytes(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "adaptor.safetensors"
    path.write_bytes(content)
    assert kind in kind_of_bytes(path)


def test_files_that_torch_writes_are_known(tmp_path: Path) -> None:
    new, old = tmp_path / "new.safetensors", tmp_path / "old.safetensors"
    torch.save({"a": torch.ones(2)}, new)
    torch.save({"a": torch.ones(2)}, old, _use_new_zipfile_serialization=False)
    assert zipfile.is_zipfile(new)
    assert "pickled PyTorch file" in kind_of_bytes(new)
    assert "pickled PyTorch file" in kind_of_bytes(old)


@pytest.mark.parametrize("content", [b"hello", b"\x00" * 20, b"\xff\xfe", b"version 3"])
def test_other_bytes_say_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "adaptor.safetensors"
    path.write_bytes(content)
    assert kind_of_bytes(path) is None


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (
            "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.to_q.weight",
            "an AnimateDiff motion module",
        ),
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "a LoRA"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.alpha", "a LoRA"),
        ("unet.down_blocks.0.attentions.0.to_q.lora_A.weight", "a LoRA"),
        ("control_model.input_hint_block.0.weight", "a ControlNet"),
        ("controlnet_cond_embedding.conv_in.weight", "a ControlNet"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a full checkpoint"),
        ("first_stage_model.decoder.conv_in.weight", "a full checkpoint"),
        ("input_blocks.0.0.weight", "a bare UNet"),
        ("down_blocks.0.resnets.0.conv1.weight", "a bare UNet"),
        ("decoder.conv_in.weight", "an autoencoder"),
        ("emb_params", "a text embedding"),
    ],
    ids=lambda value: value[:32],
)
def test_tensors_tell_the_kind_of_a_safetensors_file(key: str, kind: str) -> None:
    assert kind_of_keys(iter(["something.else", key])) == kind


def test_unknown_tensors_are_counted() -> None:
    assert kind_of_keys(["a", "b"]) == "a safetensors file of an unknown kind with 2 tensors"
    assert kind_of_keys([]) == "a safetensors file of an unknown kind with 0 tensors"
