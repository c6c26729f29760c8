"""Runs the scripted upstream until it is stopped; prints its port."""

from __future__ import annotations

import argparse
import sys

import uvloop

from tests.upstream.server import serve


async def main(port: int) -> None:
    server = await serve(port)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    uvloop.run(main(parser.parse_args().port))
