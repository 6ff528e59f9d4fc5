"""Where the adaptor meets ComfyUI: the only folder of ``adaptor_unet`` that imports the host."""
