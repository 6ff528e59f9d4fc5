"""Sizes of the compact checkpoint, and where its three parts stand in the file.  Needs no ComfyUI."""

CHANNELS = 320  # of the image network, on both of its levels
LATENT_CHANNELS = 4
TEXT_CHANNELS = 768
TEXT_POSITIONS = 77
TOKENS = 49408  # of the text encoder's vocabulary
PICTURE_CHANNELS = 64  # of the autoencoder, at every resolution

UNET = "model.diffusion_model."
TEXT = "cond_stage_model.transformer.text_model."
AUTOENCODER = "first_stage_model."
