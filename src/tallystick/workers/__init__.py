"""Workers: one loop a file, each following the log or the facts from its own position."""
