"""What the demo model draws and understands: sprites in motion, captions, words."""
