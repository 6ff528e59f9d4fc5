"""From clips on disk to what a training run learns from: frames, sub-clips, latents in a cache or in shards."""
