"""Training of video adaptors: clips in, one adaptor file out.  Knows no host; the host's part is ``host/training``."""
