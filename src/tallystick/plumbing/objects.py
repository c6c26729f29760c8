"""Objects in a folder or in S3, reached the same way; an object is written once.

`put_new` is create-only: of two writers of one name exactly one wins, on a folder by a hard
link, on S3 by `If-None-Match: *`. In a folder the bytes are on disk before the name exists, so
a power cut leaves no torn object. URLs: a plain path, `file:///folder`, or
`s3://bucket/prefix?region=...&endpoint=...&allow_http=true`; S3 credentials come from where the
AWS tools look for them (environment, web identity, instance), never from the URL.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import LocalStore, S3Store

from tallystick.errors import Conflict, InvalidInput, NotFound, StoreUnavailable

_STAGING = "staging/"
"""Objects of a folder on their way to their name; what a crash leaves here is garbage."""

_S3_OPTIONS = frozenset(
    ("region", "endpoint", "allow_http", "virtual_hosted_style_request", "skip_signature")
)
_TIMEOUT = timedelta(seconds=60)  # one object of tens of megabytes on a slow line
_RETRY_TIMEOUT = timedelta(seconds=20)  # then the follower's loop says so and tries again
_RETRIES = 3
_LIST_CHUNK = 1_000


class Objects:
    """The objects below one folder or one prefix of a bucket."""

    def __init__(self, store: LocalStore | S3Store, url: str, folder: Path | None) -> None:
        self._store = store
        self._folder = folder
        self.url = url

    def put_new(self, name: str, content: bytes) -> None:
        """Create an object; the same content again is fine, other content is a Conflict.

        Durable when this returns. Raises StoreUnavailable.
        """
        try:
            with _reaching(self.url):
                if self._folder is None:
                    obstore.put(self._store, name, content, mode="create", use_multipart=False)
                else:
                    self._link_new(name, content)
        except (AlreadyExistsError, PreconditionError) as error:
            if digest_of(self.get(name)) != digest_of(content):
                raise Conflict(
                    f"{name} exists in {self.url} with other content; it is never overwritten",
                    code="object_exists",
                ) from error

    def _link_new(self, name: str, content: bytes) -> None:
        folder = self._folder or Path()
        staged = _STAGING + secrets.token_hex(8)
        obstore.put(self._store, staged, content, use_multipart=False)
        try:
            _sync(folder / staged)
            obstore.rename(self._store, staged, name, overwrite=False)
        except AlreadyExistsError:
            obstore.delete(self._store, staged)
            raise
        place = (folder / name).parent
        while place != folder.parent:  # a new folder's name is durable in its own parent
            _sync(place)
            place = place.parent

    def get(self, name: str) -> bytes:
        """The whole object; NotFound when there is none."""
        with _reaching(self.url, name):
            return bytes(obstore.get(self._store, name).bytes())

    def get_range(self, name: str, start: int, end: int) -> bytes:
        """The bytes [start, end) of an object; NotFound when there is none."""
        with _reaching(self.url, name):
            return bytes(obstore.get_range(self._store, name, start=start, end=end))

    def list(self, prefix: str) -> list[str]:
        """Names below a prefix (whole path segments), in order."""
        with _reaching(self.url):
            pages = obstore.list(self._store, prefix, chunk_size=_LIST_CHUNK)
            return sorted(entry["path"] for page in pages for entry in page)

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; one that is gone already is fine."""
        with _reaching(self.url):
            if self._folder is None and names:
                obstore.delete(self._store, list(names))
                return
            for name in names:
                with suppress(FileNotFoundError):
                    obstore.delete(self._store, name)


def open_objects(url: str, options: Mapping[str, str] | None = None) -> Objects:
    """Open the objects of a URL; `options` win over those in the URL's query.

    Raises InvalidInput when the URL is of another kind or has an unknown option.
    """
    parts = urlsplit(url)
    if parts.scheme in ("", "file"):
        folder = Path(unquote(parts.path) if parts.scheme else url).expanduser().absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return Objects(LocalStore(folder), url, folder)
    if parts.scheme != "s3" or not parts.netloc:
        raise InvalidInput(
            "archive_url must be a folder, file:///folder or s3://bucket/prefix",
            code="bad_setting",
            field="archive_url",
        )
    chosen = {**dict(parse_qsl(parts.query)), **(options or {})}
    if unknown := sorted(chosen.keys() - _S3_OPTIONS):
        raise InvalidInput(
            f"archive_url has unknown options: {', '.join(unknown)}",
            code="bad_setting",
            field="archive_url",
        )
    return Objects(_s3_store(parts.netloc, parts.path.strip("/"), chosen), url, None)


def _s3_store(bucket: str, prefix: str, options: Mapping[str, str]) -> S3Store:
    more = {name: value for name, value in options.items() if name != "allow_http"}
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options={
            "timeout": _TIMEOUT,
            "allow_http": options.get("allow_http", "").lower() == "true",
        },
        retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIMEOUT},
        config=more,  # type: ignore[arg-type]
    )


def digest_of(content: bytes) -> str:
    """The SHA-256 of an object, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _reaching(url: str, name: str = "") -> Iterator[None]:
    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except FileNotFoundError as error:
        raise NotFound(f"{url} has no object {name}", code="no_such_object") from error
    except (BaseError, OSError) as error:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise StoreUnavailable(f"{url} cannot be reached: {reason}") from error


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
