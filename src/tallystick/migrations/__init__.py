"""The schema of both stores, as numbered SQL files that run once each, in order."""
