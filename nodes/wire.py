"""The pack's own type on the wire: a ModelPatcher around a video adaptor."""

from comfy_api.latest import io

Adaptor = io.Custom("MAGICVIDEO_ADAPTOR")
CATEGORY = "magicvideo"
