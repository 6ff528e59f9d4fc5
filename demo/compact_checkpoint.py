"""The layout of a compact checkpoint that ComfyUI loads as SD1.5: names and shapes only, no numbers.

The image network has two levels of 320 channels with one residual block each, and attention everywhere. It keeps
SD1.5's names, 320 base channels and 768 text channels, which is what ComfyUI recognises the family by. The text encoder
has CLIP-L's layout, and the autoencoder is the small convolutional one that ComfyUI knows.

A random model (make_random_checkpoint.py) and a trained one fill the same layout.
"""

from collections.abc import Iterator

Shape = tuple[int, ...]
Shapes = dict[str, Shape]
Named = Iterator[tuple[str, Shape]]

CHANNELS = 320
TIME_CHANNELS = 4 * CHANNELS
TEXT_CHANNELS = 768
TEXT_HIDDEN = 4 * TEXT_CHANNELS
TEXT_LAYERS = 12
TOKENS = 49408
TEXT_POSITIONS = 77
LATENT_CHANNELS = 4
PICTURE_CHANNELS = 64

UNET = "model.diffusion_model."
TEXT = "cond_stage_model.transformer.text_model."
AUTOENCODER = "first_stage_model."


def checkpoint_shapes() -> Shapes:
    """Every tensor of the checkpoint."""
    return dict([*_under(UNET, _unet()), *_under(TEXT, _text_encoder()), *_under(AUTOENCODER, _autoencoder())])


def controlnet_shapes() -> Shapes:
    """A ControlNet for this image network, in the layout of the first SD1.5 ControlNets."""
    return dict(_under("control_model.", _controlnet()))


def lora_shapes(rank: int = 4) -> Shapes:
    """A LoRA on the queries and values of every attention of this image network."""
    shapes: Shapes = {}
    for name, shape in checkpoint_shapes().items():
        if name.startswith(UNET) and name.endswith(("to_q.weight", "to_v.weight")):
            site = "lora_unet_" + name[len(UNET) : -len(".weight")].replace(".", "_")
            shapes[f"{site}.lora_up.weight"] = (shape[0], rank)
            shapes[f"{site}.lora_down.weight"] = (rank, shape[1])
    return shapes


def _under(prefix: str, named: Named) -> Named:
    for name, shape in named:
        yield prefix + name, shape


def _layer(name: str, *weight: int) -> Named:
    """A linear layer or a convolution with bias; the output channels come first."""
    yield f"{name}.weight", weight
    yield f"{name}.bias", weight[:1]


def _norm(name: str, channels: int) -> Named:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def _unet() -> Named:
    yield from _unet_encoder()
    for block in range(4):
        yield from _under(f"output_blocks.{block}.0.", _residual(2 * CHANNELS, CHANNELS))
        yield from _under(f"output_blocks.{block}.1.", _transformer())
    yield from _layer("output_blocks.1.2.conv", CHANNELS, CHANNELS, 3, 3)
    yield from _norm("out.0", CHANNELS)
    yield from _layer("out.2", LATENT_CHANNELS, CHANNELS, 3, 3)


def _unet_encoder() -> Named:
    """Time embedding, downward half and middle: what the image network and its ControlNet share."""
    yield from _layer("time_embed.0", TIME_CHANNELS, CHANNELS)
    yield from _layer("time_embed.2", TIME_CHANNELS, TIME_CHANNELS)
    yield from _layer("input_blocks.0.0", CHANNELS, LATENT_CHANNELS, 3, 3)
    yield from _layer("input_blocks.2.0.op", CHANNELS, CHANNELS, 3, 3)
    for block in ("input_blocks.1", "input_blocks.3", "middle_block"):
        yield from _under(f"{block}.0.", _residual(CHANNELS, CHANNELS))
        yield from _under(f"{block}.1.", _transformer())
    yield from _under("middle_block.2.", _residual(CHANNELS, CHANNELS))


def _residual(before: int, after: int) -> Named:
    yield from _norm("in_layers.0", before)
    yield from _layer("in_layers.2", after, before, 3, 3)
    yield from _layer("emb_layers.1", after, TIME_CHANNELS)
    yield from _norm("out_layers.0", after)
    yield from _layer("out_layers.3", after, after, 3, 3)
    if before != after:
        yield from _layer("skip_connection", after, before, 1, 1)


def _transformer() -> Named:
    yield from _norm("norm", CHANNELS)
    # 1x1 convolutions, not linear layers: ComfyUI takes linear ones for SD2.
    yield from _layer("proj_in", CHANNELS, CHANNELS, 1, 1)
    yield from _layer("proj_out", CHANNELS, CHANNELS, 1, 1)
    block = "transformer_blocks.0"
    for attention, source in (("attn1", CHANNELS), ("attn2", TEXT_CHANNELS)):
        yield f"{block}.{attention}.to_q.weight", (CHANNELS, CHANNELS)
        yield f"{block}.{attention}.to_k.weight", (CHANNELS, source)
        yield f"{block}.{attention}.to_v.weight", (CHANNELS, source)
        yield from _layer(f"{block}.{attention}.to_out.0", CHANNELS, CHANNELS)
    yield from _layer(f"{block}.ff.net.0.proj", 8 * CHANNELS, CHANNELS)
    yield from _layer(f"{block}.ff.net.2", CHANNELS, 4 * CHANNELS)
    for norm in ("norm1", "norm2", "norm3"):
        yield from _norm(f"{block}.{norm}", CHANNELS)


def _text_encoder() -> Named:
    yield "embeddings.token_embedding.weight", (TOKENS, TEXT_CHANNELS)
    yield "embeddings.position_embedding.weight", (TEXT_POSITIONS, TEXT_CHANNELS)
    for number in range(TEXT_LAYERS):
        layer = f"encoder.layers.{number}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _layer(f"{layer}.self_attn.{projection}", TEXT_CHANNELS, TEXT_CHANNELS)
        yield from _layer(f"{layer}.mlp.fc1", TEXT_HIDDEN, TEXT_CHANNELS)
        yield from _layer(f"{layer}.mlp.fc2", TEXT_CHANNELS, TEXT_HIDDEN)
        yield from _norm(f"{layer}.layer_norm1", TEXT_CHANNELS)
        yield from _norm(f"{layer}.layer_norm2", TEXT_CHANNELS)
    yield from _norm("final_layer_norm", TEXT_CHANNELS)


def _autoencoder() -> Named:
    """Places in the two stacks are counted with their activations and upsamplings, hence the gaps."""
    yield from _under("taesd_encoder.", _picture_stack(blocks=(1, 3, 4, 5, 7, 8, 9, 11, 12, 13), resized=(2, 6, 10)))
    yield from _layer("taesd_encoder.0", PICTURE_CHANNELS, 3, 3, 3)
    yield from _layer("taesd_encoder.14", LATENT_CHANNELS, PICTURE_CHANNELS, 3, 3)
    yield from _under("taesd_decoder.", _picture_stack(blocks=(3, 4, 5, 8, 9, 10, 13, 14, 15, 18), resized=(7, 12, 17)))
    yield from _layer("taesd_decoder.1", PICTURE_CHANNELS, LATENT_CHANNELS, 3, 3)
    yield from _layer("taesd_decoder.19", 3, PICTURE_CHANNELS, 3, 3)
    yield "vae_scale", ()
    yield "vae_shift", ()


def _picture_stack(blocks: tuple[int, ...], resized: tuple[int, ...]) -> Named:
    for block in blocks:
        for conv in (0, 2, 4):
            yield from _layer(f"{block}.conv.{conv}", PICTURE_CHANNELS, PICTURE_CHANNELS, 3, 3)
    for conv in resized:
        yield f"{conv}.weight", (PICTURE_CHANNELS, PICTURE_CHANNELS, 3, 3)


def _controlnet() -> Named:
    yield from _unet_encoder()
    widths = (3, 16, 16, 32, 32, 96, 96, 256, CHANNELS)
    for number, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
        yield from _layer(f"input_hint_block.{2 * number}", after, before, 3, 3)
    for block in range(4):
        yield from _layer(f"zero_convs.{block}.0", CHANNELS, CHANNELS, 1, 1)
    yield from _layer("middle_block_out.0", CHANNELS, CHANNELS, 1, 1)
