"""Training of video adaptors: clips in, one adaptor file out.  Knows no host; ``trainer`` at the top knows both."""
