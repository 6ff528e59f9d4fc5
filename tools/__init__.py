"""What serves the pack and its tests: a ComfyUI in this process or as a server, workflows, random models."""
