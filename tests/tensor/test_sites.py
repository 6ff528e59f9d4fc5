"""Which places of a UNet take part."""

import pytest
from torch import nn

from magicvideo.adaptor_unet.sites import Site, find_sites


def by_kind(unet: nn.Module, kind: str) -> list[str]:
    return [site.name for site in find_sites(unet) if site.kind == kind]


def test_sd15_has_51_convolutions_and_16_transformers(sd15_unet: nn.Module) -> None:
    names = by_kind(sd15_unet, "convolution")
    assert len(names) == 51
    assert sum(".in_layers." in name or ".out_layers." in name for name in names) == 44
    assert len(by_kind(sd15_unet, "transformer")) == 16


def test_every_3x3_convolution_but_the_last_takes_part(sd15_unet: nn.Module) -> None:
    convolutions = {name: m for name, m in sd15_unet.named_modules() if isinstance(m, nn.Conv2d)}
    wanted = {name for name, m in convolutions.items() if m.kernel_size == (3, 3)} - {"out.2"}
    assert set(by_kind(sd15_unet, "convolution")) == wanted
    assert "out.2" in convolutions and "input_blocks.1.1.proj_in" in convolutions


def test_1x1_convolutions_take_no_part(small_unet: nn.Module) -> None:
    names = by_kind(small_unet, "convolution")
    assert not [name for name in names if "proj_" in name or "skip_connection" in name]
    small_unet.get_submodule("input_blocks.3.0").op = nn.Conv2d(16, 16, 1)
    assert by_kind(small_unet, "convolution") == [name for name in names if name != "input_blocks.3.0.op"]


def test_sites_come_in_the_order_of_the_unet(sd15_unet: nn.Module) -> None:
    order = [name for name, _ in sd15_unet.named_modules()]
    names = [site.name for site in find_sites(sd15_unet)]
    assert names == sorted(names, key=order.index)
    assert names[:4] == [
        "input_blocks.0.0",
        "input_blocks.1.0.in_layers.2",
        "input_blocks.1.0.out_layers.3",
        "input_blocks.1.1.transformer_blocks.0",
    ]


def test_sites_know_the_channels_that_come_out(sd15_unet: nn.Module) -> None:
    channels = {site.name: site.channels for site in find_sites(sd15_unet)}
    assert channels["input_blocks.0.0"] == 320
    assert channels["input_blocks.4.0.in_layers.2"] == 640
    assert channels["middle_block.1.transformer_blocks.0"] == 1280
    assert channels["output_blocks.5.2.conv"] == 1280
    assert channels["output_blocks.11.1.transformer_blocks.0"] == 320


def test_transformers_have_a_place_each_as_the_host_counts(sd15_unet: nn.Module) -> None:
    blocks = [site.block for site in find_sites(sd15_unet) if site.kind == "transformer"]
    assert [number for side, number, _ in blocks if side == "input"] == [1, 2, 4, 5, 7, 8]
    assert [number for side, number, _ in blocks if side == "middle"] == [0]
    assert [number for side, number, _ in blocks if side == "output"] == list(range(3, 12))
    assert {inner for _, _, inner in blocks} == {0}


def test_of_a_transformer_of_several_blocks_every_one_is_a_site_or_the_first() -> None:
    block = nn.ModuleDict({"norm1": nn.LayerNorm(8)})
    transformer = nn.ModuleDict(
        {"transformer_blocks": nn.ModuleList([block] + [nn.ModuleDict(block) for _ in range(9)])}
    )
    unet = nn.ModuleDict({"middle_block": nn.ModuleList([nn.Identity(), transformer])})
    assert [site.block for site in find_sites(unet)] == [("middle", 0, number) for number in range(10)]
    assert [site.block for site in find_sites(unet, "first_block")] == [("middle", 0, 0)]


def test_other_modules_have_no_sites() -> None:
    assert find_sites(nn.Sequential(nn.Conv2d(3, 3, 3), nn.Linear(3, 3))) == ()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("input_blocks.0.0", "convolution"),
        ("input_blocks.11.0.out_layers.3", "convolution"),
        ("input_blocks.3.0.op", "convolution"),
        ("middle_block.2.in_layers.2", "convolution"),
        ("output_blocks.2.1.conv", "convolution"),
        ("middle_block.1.transformer_blocks.0", "transformer"),
        ("output_blocks.3.1.transformer_blocks.9", "transformer"),
    ],
)
def test_places_of_a_unet_are_sites(name: str, kind: str) -> None:
    assert Site(name, kind, 320).name == name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("", "convolution"),
        ("out.2", "convolution"),
        ("input_blocks.0.0", "transformer"),
        ("middle_block.1.transformer_blocks.0", "convolution"),
        ("input_blocks.1.0.skip_connection", "convolution"),
        ("input_blocks.1.1.proj_in", "convolution"),
        ("input_blocks.0.0.op", "convolution"),  # would lie inside another site's module
        ("input_blocks.1.0.in_layers.2\n", "convolution"),
        (" input_blocks.0.0", "convolution"),
        ("input_blocks.1.0.in_layers.2.weight", "convolution"),
        ("__class__.__init__", "convolution"),
        ("input_blocks.1.__dict__.op", "convolution"),
        ("input_blocks.0.0", "other"),
        ("input_blocks.0.0", ""),
        ("input_blocks.0.0", None),
        ("input_blocks.0.0", ["convolution"]),
        (None, "convolution"),
        (["input_blocks.0.0"], "convolution"),
        (0, "convolution"),
    ],
)
def test_other_names_are_refused(name: object, kind: object) -> None:
    with pytest.raises(ValueError, match="no such place"):
        Site(name, kind, 320)


@pytest.mark.parametrize("channels", [0, -1, 65_537, 2**70, 8.0, True, "8", None, [8], float("nan")])
def test_unusable_channels_are_refused(channels: object) -> None:
    with pytest.raises(ValueError, match="channels must be"):
        Site("input_blocks.0.0", "convolution", channels)
