"""Metering the official clients without the gateway."""


def instrument(*_: Any, **__: Any) -> None:
    """Not yet."""
