"""The dashboard: server-rendered pages behind a login, charts without any outside host."""

from tallystick.dashboard.pages import pages_of

__all__ = ["pages_of"]
