"""Where ComfyUI's model and the training meet: the one way to put a run together, for node, command and demo."""
