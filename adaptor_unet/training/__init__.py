"""Training of video adaptors: clips in, one adaptor file out.  Knows no host; ``nodes/training`` knows both."""
