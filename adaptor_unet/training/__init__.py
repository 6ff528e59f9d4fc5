"""Training an adaptor from clips.  Knows torch and the tensor files, and nothing of ComfyUI."""
