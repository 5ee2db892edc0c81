"""Files that are whole or not there, and hashes. The standard library alone, so that every room may use it at no cost."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fairseg_lite.errors import InputError


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A name to write under; what is written there then takes the place of `path`, at once.

    Args: path; its folder is made.
    Raises: InputError, when it cannot be written; what stood there before is untouched.
    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole(Path(folder) / "new/a.txt") as part:
        ...         _ = part.write_text("done")
        ...     print((Path(folder) / "new/a.txt").read_text())
        done
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.part{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"cannot write {str(path)!r}: {error.strerror}; nothing half-written is left there") from error
    finally:
        with contextlib.suppress(OSError):  # its folder may be no folder
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: str | Path | None) -> Iterator[None]:
    """Nobody else's folder meanwhile; what a process that was killed left half-written there goes. None holds nothing.

    Raises: InputError, another process holds it, or it cannot be written. On Windows and some network disks nobody is refused.
    """
    if folder is None:
        yield
        return
    path = Path(folder) / ".held"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115  (it is locked as long as it is open)
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for part in path.parent.glob(".*.part*"):
            part.unlink()
    except BlockingIOError as error:
        raise InputError(f"another process is training in {str(folder)!r}; let it end, or choose another folder") from error
    except OSError as error:
        raise InputError(f"cannot write in {str(folder)!r}: {error.strerror}; choose another folder") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        file.close()


def read_json(path: str | Path, object_hook: Callable | None = None) -> Any:
    """What a JSON file holds, in UTF-8 or another Unicode, with or without a mark; object_hook: as for `json.loads`.

    Raises: InputError, it is not there or no JSON: says where.
    """
    try:
        return json.loads(Path(path).read_bytes(), object_hook=object_hook)
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r} is not JSON: {error}") from error
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def write_json(path: str | Path, content: object, *, indent: int | None = None) -> None:
    """Write JSON in a `whole` file."""
    with whole(path) as part:
        part.write_text(json.dumps(content, indent=indent) + "\n", "utf-8")


def short_hash(*parts: object) -> str:
    """16 letters that are others where one of the parts is another: bytes as they are, anything else as text.

    Example:
        >>> short_hash(b"pixels", 480, 640) != short_hash(b"pixels", 640, 480)
        True
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode()
        digest.update(raw)
        digest.update(b"%d" % len(raw))  # so that no part runs into the next
    return digest.hexdigest()
