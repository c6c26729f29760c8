"""The gateway under test: the official SDKs against a real server and the scripted upstream."""
