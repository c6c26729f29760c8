"""Dashboard."""
from tallystick.api.services import Services
def pages_of(services: Services) -> list[object]:
    return []
