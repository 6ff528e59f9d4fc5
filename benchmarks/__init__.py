"""What the pack costs and what its parts are worth."""
