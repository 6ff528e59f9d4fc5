"""Refuses what goes wrong where one step of sampling takes several calls of the UNet, each for other frames.

Some nodes go wrong, the host's own and other packs': those that keep a call's result for the next step's call, those
that read, in the guidance of the whole batch, what they noted in the UNet, and one that makes features smaller in the
first steps.  What they do lies in their own functions, out of reach, so they are known by name.  Effects that let
frames see later ones go wrong too: those are not there yet.
"""

from collections.abc import Iterator, Sequence

from comfy.patcher_extension import WrappersMP

from .call_part import ModelOptions
from .causal_sampling import causal_sampling, node_that_orders
from .causal_windows import CausalWindows, windows_of
from .content_of import qualified_name
from .effect import Effect

# The host's classes, in whose names their functions are.
SELF_ATTENTION_GUIDANCE, DEEP_SHRINK = "SelfAttentionGuidance", "PatchModelAddDownscale"
# Wrappers that the host calls once for each chunk of Causal Windows, by kind; those of other kinds see the whole batch.
IN_CHUNKS = (WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)
IN_SAMPLING = (*IN_CHUNKS, WrappersMP.PREDICT_NOISE)


def refuse_step_state(effects: Sequence[Effect], frames: int, model_options: ModelOptions) -> None:
    """Raises ValueError for what cannot stand beside the order in which frames go through the UNet."""
    windows = windows_of(model_options)
    if causal_sampling(effects, frames, model_options):
        node = node_that_orders(effects)
        refuse_frame_by_frame(model_options, node)
        for effect in two_way(effects):
            raise ValueError(
                f"{effect.node} lets each frame see those after it, but frames are sampled one after the other. Set "
                f"order of {node} to together, or take one of the two out."
            )
    elif windows is not None and frames > windows.chunk_frames:
        refuse_in_chunks(model_options, frames)
        for effect in two_way(effects):
            refuse_cut_clips(effect, windows, frames)


def two_way(effects: Sequence[Effect]) -> Iterator[Effect]:
    """The effects that act and let frames see later ones."""
    return (effect for effect in effects if effect.two_way and effect.strength)


def refuse_cut_clips(effect: Effect, windows: CausalWindows, frames: int) -> None:
    """Raises ValueError where a chunk holds a part of a clip whose frames all see each other."""
    clip = effect.frames_per_clip or frames
    if any(len(chunk.index_list) != clip for chunk in windows.chunks(frames)):
        raise ValueError(
            f"{effect.node} lets each frame see those after it, but Causal Windows takes {clip} frames in chunks of "
            f"{windows.chunk_frames}, which suits what looks back alone. Take Causal Windows out; for a long clip, use "
            "ComfyUI's own Context Windows (Manual)."
        )


def refuse_in_chunks(model_options: ModelOptions, frames: int) -> None:
    """Raises ValueError where a node cannot stand beside Causal Windows that cut a batch of so many frames."""
    remedy = f"Take it out, or set chunk_frames of Causal Windows to {frames} or more."
    for name in step_caches(model_options, IN_CHUNKS):
        raise ValueError(
            f"{name} keeps what the model gave at one step for the next, but Causal Windows asks the model once a "
            f"chunk, so that frames would get those of other chunks. {remedy}"
        )
    if has_self_attention_guidance(model_options):
        raise ValueError(
            "Self-Attention Guidance reads the attention of the model's last call for all frames, but with Causal "
            f"Windows this call holds the last chunk alone. {remedy}"
        )


def refuse_frame_by_frame(model_options: ModelOptions, node: str) -> None:
    """Raises ValueError for what cannot stand where frames are sampled one after the other, as ``node`` wants them."""
    for name in step_caches(model_options, IN_SAMPLING):
        raise ValueError(
            f"{name} keeps what the model gave at one step for the next, but frames are sampled one after the other, "
            f"so that a frame would get what is of the frame before. Take it out, or set order of {node} to together."
        )
    if has_deep_shrink(model_options):
        raise ValueError(
            "PatchModelAddDownscale (Kohya Deep Shrink) makes the picture smaller in the first steps, but frames are "
            "sampled one after the other, and finished frames are seen at their full size. Take it out, or set order "
            f"of {node} to together."
        )


def has_self_attention_guidance(model_options: ModelOptions) -> bool:
    """Whether the host's node of that name is on the model."""
    behind_guidance = model_options.get("sampler_post_cfg_function", [])
    return any(qualified_name(function).startswith(SELF_ATTENTION_GUIDANCE) for function in behind_guidance)


def has_deep_shrink(model_options: ModelOptions) -> bool:
    """Whether the host's node that makes features smaller while the noise is high is on the model."""
    patches = model_options.get("transformer_options", {}).get("patches", {})
    behind_blocks = (*patches.get("input_block_patch", ()), *patches.get("input_block_patch_after_skip", ()))
    return any(qualified_name(patch).startswith(DEEP_SHRINK) for patch in behind_blocks)


def step_caches(model_options: ModelOptions, kinds: tuple[str, ...]) -> Iterator[str]:
    """Names of what keeps the model's results from step to step, the host's and other packs': their wrappers' keys, or
    their functions' names, say so."""
    options = model_options.get("transformer_options", {})
    held = options.get("easycache")  # the host's two nodes, which have a name for the log
    for kind in kinds:
        for key, functions in options.get("wrappers", {}).get(kind, {}).items():
            if functions and any("cache" in name.lower() for name in (str(key), *map(qualified_name, functions))):
                yield getattr(held, "name", None) or f"A step cache ({key or qualified_name(functions[0])})"
    function = model_options.get("model_function_wrapper")
    if function is not None and "cache" in qualified_name(function).lower():
        yield f"A step cache ({qualified_name(function)})"
