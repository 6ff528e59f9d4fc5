"""How the demo model was trained, from the drawings to the motion."""
