"""The demo model's layout and files: narrow networks, padded to what ComfyUI loads."""
