"""Where the host's model and the trainer meet, for the node and for the command line: only nodes know both rooms."""
