"""Files that are whole or not there. The standard library alone, so that every room may use it at no cost."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

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


def write_json(path: str | Path, content: object, *, indent: int | None = None) -> None:
    """Write JSON in a `whole` file."""
    with whole(path) as part:
        part.write_text(json.dumps(content, indent=indent) + "\n", "utf-8")
