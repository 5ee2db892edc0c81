"""What may go wrong outside the library, done on purpose; `python -m tests.survived` counts it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fairseg_lite.errors import InputError

SENTENCES = (InputError, OSError)  # what a person can do something about


@dataclass
class Count:
    """How often something was tried, how often it was survived, and what went wrong where it was not."""

    tried: int = 0
    survived: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, right: bool, fault: object = "") -> None:
        self.tried += 1
        self.survived += right
        if not right:
            self.faults.append(str(fault))

    def survives(self, work: Callable[[], object], what: object = "", *, refused: str | None = None) -> None:
        """Do something that gives a result or a sentence; with `refused`, a sentence that has these words in it."""
        try:
            work()
            self.add(refused is None, f"{what}: not refused")
        except SENTENCES as error:
            self.add(refused is None or refused in str(error), f"{what}: {error}")
        except Exception as error:
            self.add(False, f"{what}: {type(error).__name__}: {error}")
