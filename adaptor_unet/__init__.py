"""The tensors of MagicVideo and their files, without ComfyUI.  ``host`` and ``training`` build on this folder."""
