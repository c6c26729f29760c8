"""The parts of enforcement together, over HTTP on one server with a gateway."""
