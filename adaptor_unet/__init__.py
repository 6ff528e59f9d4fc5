"""The tensors of MagicVideo: torch and einops only, no host.  ``host`` and ``training`` build on this folder."""
