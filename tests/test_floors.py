"""A room imports only from floors below it, or from its own folder: the arrow of the pipeline never turns back."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "fairseg_lite"
FLOORS = {
    "errors": 0, "geometry": 0, "data": 1, "models": 1, "inference": 2, "evaluation": 2, "training": 3, "official": 3,
    "plots": 4, "course": 5, "bench": 4, "cli": 6,
}  # fmt: skip


def violations(package: Path) -> list[str]:
    """Imports that go up, sideways into another folder of the same floor, or from a room without a floor."""
    found = []
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module == package.name:
                names += [f"{package.name}.{a.name}" for a in node.names]
            for name in names:
                parts = name.split(".")
                if parts[0] != package.name or len(parts) == 1 or parts[1] == room:
                    continue
                if room not in FLOORS or parts[1] not in FLOORS:
                    found.append(f"{path.name}: no floor for {room} -> {parts[1]}")
                elif not (FLOORS[parts[1]] < FLOORS[room] or FLOORS[room] == FLOORS[parts[1]] == 4 or parts[1] == "errors"):
                    found.append(f"{path.relative_to(package)}: {room} imports {parts[1]}")
    return found


def test_the_library_keeps_its_floors():
    assert violations(PACKAGE) == []
    assert len(list(PACKAGE.rglob("*.py"))) > 15, "the test looks at the wrong folder"


def test_a_room_that_reaches_up_is_seen(tmp_path):
    house = tmp_path / "fairseg_lite"
    for name, line in {
        "models/net.py": "from fairseg_lite.training.fit import fit",
        "data/read.py": "from fairseg_lite.models import trunks",
        "geometry/box.py": "from fairseg_lite import plots",
        "attic/old.py": "import fairseg_lite.geometry.boxes",
        "training/fine.py": "from fairseg_lite.models.trunks import ResNetTrunk",
    }.items():
        (house / name).parent.mkdir(parents=True)
        (house / name).write_text(line + "\n")
    seen = violations(house)
    assert len(seen) == 4 and not any("fine.py" in v for v in seen)
