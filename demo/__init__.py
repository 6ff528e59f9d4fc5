"""The small model that comes with the pack, and all that made it."""
