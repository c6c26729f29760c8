"""The composition root: which parts run, and what each is given."""

from tallystick.bootstrap.gateway import gateway_of
from tallystick.bootstrap.options import worker_options
from tallystick.bootstrap.platform import Platform, migrate, open_platform, services_of
from tallystick.bootstrap.secrets import load_admin_key

__all__ = [
    "Platform",
    "gateway_of",
    "load_admin_key",
    "migrate",
    "open_platform",
    "services_of",
    "worker_options",
]
