"""ComfyUI-MagicVideo.  Importing this file touches nothing; the host is imported once it asks for the nodes."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():  # noqa: ANN201 - the type lives in the host, which is not imported here
    """Called by ComfyUI when it loads the pack."""
    from .nodes import MagicVideoExtension

    return MagicVideoExtension()
