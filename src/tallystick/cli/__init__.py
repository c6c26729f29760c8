"""The command line: starts processes and prints; no logic of its own."""
