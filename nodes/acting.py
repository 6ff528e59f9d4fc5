"""Inputs that the nodes share which act while a model samples."""

from comfy_api.latest import io


def frames_per_clip() -> io.Int.Input:
    return io.Int.Input(
        "frames_per_clip",
        default=0,
        min=0,
        max=4096,
        tooltip="0: the whole batch is one clip. Otherwise clips of this length, one after the other.",
    )


def strength(tooltip: str) -> io.Float.Input:
    """Of something of which there is a whole and no more."""
    return io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.01, tooltip=tooltip)


def start_percent(tooltip: str) -> io.Float.Input:
    return io.Float.Input("start_percent", default=0.0, min=0.0, max=1.0, step=0.001, tooltip=tooltip)


def end_percent(tooltip: str) -> io.Float.Input:
    return io.Float.Input("end_percent", default=1.0, min=0.0, max=1.0, step=0.001, tooltip=tooltip)
