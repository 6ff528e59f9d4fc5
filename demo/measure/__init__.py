"""What the demo model does, measured and shown."""
