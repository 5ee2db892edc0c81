"""The course, in one command each. They need Python 3.11 or newer and nothing else:

    python3 course.py lab      open your copies of the lessons in JupyterLab: they are in my-lessons, and nothing overwrites them
    python3 course.py test     everything CI checks; with --full the lessons run as long as their readers' do
    python3 course.py book     the whole course as pages to read, search and print without a network: open out/book/index.html
    python3 course.py slides 04    a lesson as slides, for teachers: out/slides
    python3 course.py demo     the pipeline on a picture: look into out/demo
    python3 course.py shell    a Python prompt with the library

The first call makes .venv. What stands after a job but test goes to the program that is started.
"""

import ast, hashlib, json, os, shutil, signal, subprocess, sys, time  # noqa: E401, I001  (all of one library)
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
MADE_FROM = VENV / "made-from.txt"  # written last: without it .venv is half-made
PYTHON = str(VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
MINE = ROOT / "my-lessons"  # where learners write
LAB = "-m jupyterlab my-lessons --LabApp.default_url=/lab/tree/00_start_here.ipynb --LabApp.app_settings_dir=my-lessons/.lab"
LAB += " --ContentsManager.hide_globs=runs --ContentsManager.hide_globs=__pycache__"  # what lessons make: the list shows lessons
NO_NEWS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}  # which else asks whether to show Jupyter's
JOBS = {"lab": LAB, "demo": "-m fairseg_lite.cli demo", "shell": "-m IPython"}
JOBS |= {"book": "docs/book.py", "slides": "docs/book.py --slides"}
WHOLE = "from importlib.util import find_spec as f; assert all(map(f, 'torch torchvision IPython nbval ruff mypy'.split()))"
FITS = "import torch, torchvision; torchvision.ops.nms(torch.eye(1, 4), torch.ones(1), 0.5)"
INDEX = ("index-url", "cert", "client-cert", "proxy", "trusted-host", "timeout", "cache-dir")  # kept of pip's options
STRAY = ("FIND_LINKS", "EXTRA_INDEX_URL", "CONSTRAINT", "NO_INDEX", "PRE", "TARGET", "PREFIX", "USER")  # never kept


def environment():
    """Of set-up and jobs: Python keeps bytecode (imports are several times faster), wheels come from the index only."""
    drop = ["PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", *(t + s for t in ("PIP_", "UV_") for s in STRAY)]
    env = {k: v for k, v in os.environ.items() if k not in drop}
    return {**env, "VIRTUAL_ENV": str(VENV), "PATH": str(Path(PYTHON).parent) + os.pathsep + env.get("PATH", "")}


def pip_environment():
    """Of pip: its configuration may name more places, which offer another torch than torchvision was built for."""
    listed = run(PYTHON, "-m", "pip", "config", "list", text=True, capture_output=True).stdout  # global, then install
    words = (line.partition("=") for line in listed.splitlines() if line.startswith(("global.", "install.")))
    options = {name.partition(".")[2]: str(ast.literal_eval(value)) for name, _, value in words}
    kept = {"PIP_" + k.replace("-", "_").upper(): options[k] for k in INDEX if k in options}
    return {**kept, **environment(), "PIP_CONFIG_FILE": os.devnull}


def run(*command, env=None, **options):
    return subprocess.run(command, cwd=ROOT, env=env or environment(), **options)


def source():
    """What .venv is made from; where this has changed, it is made anew."""
    import tomllib

    return repr([PYTHON, sys.version, tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]])


def ready():
    made = MADE_FROM.read_text("utf-8") if MADE_FROM.is_file() and Path(PYTHON).exists() else ""
    return made == source() and run(PYTHON, "-c", WHOLE, capture_output=True).returncode == 0


def setup():
    """Make .venv, or make it anew, with everything that lessons and tests need."""
    start, uv, base = time.time(), shutil.which("uv"), getattr(sys, "_base_executable", sys.executable)
    cost = "1 minute with uv" if uv else "3 to 5 minutes with pip; 1 where uv is installed"
    print(f"Making .venv: PyTorch, JupyterLab and test tools, 5 GB of disk ({cost}) ...", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    install = ["install", "--quiet", "-e", ".[lab,test]"]
    make = [uv, "venv", "--quiet", "--python", base, str(VENV)] if uv else [base, "-m", "venv", str(VENV)]
    fill = [uv, "pip", *install, "--python", PYTHON] if uv else [PYTHON, "-m", "pip", *install]
    if run(*make).returncode or run(*fill, env=None if uv else pip_environment()).returncode:
        free = shutil.disk_usage(ROOT).free / 1e9
        sys.exit(f"Set-up failed, as said above. Is the network there? {free:.0f} GB of disk are free, 6 are needed.")
    fits = run(PYTHON, "-c", FITS, text=True, capture_output=True)
    if fits.returncode:
        why = (fits.stderr.strip().splitlines() or ["no message"])[-1]
        sys.exit(f"torch and torchvision do not fit each other ({why}); does a uv or pip setting fix one of them?")
    MADE_FROM.write_text(source(), "utf-8")
    print(f"Ready after {time.time() - start:.0f} s; the next call starts at once.", flush=True)


def copy_lessons():
    """Lessons without outputs, to write in. A copy that is there stays as it is, also where its lesson has changed since."""
    (MINE / ".lab").mkdir(parents=True, exist_ok=True)
    (MINE / ".lab/overrides.json").write_text(json.dumps(NO_NEWS), "utf-8")
    for path in sorted((ROOT / "lessons").glob("*.ipynb")):
        lesson, mine = json.loads(path.read_text("utf-8")), MINE / path.name
        for cell in lesson["cells"]:
            if cell["cell_type"] == "code":
                cell.update(outputs=[], execution_count=None)
        text = json.dumps(lesson["cells"])
        lesson["metadata"]["made_from"] = made_from = hashlib.sha256(text.encode()).hexdigest()
        if not mine.exists():
            mine.write_text(json.dumps(lesson, indent=1, ensure_ascii=False) + "\n", "utf-8")
        elif f'"{made_from}"' not in mine.read_text("utf-8"):
            print(f"{path.name} has changed since your copy was made. To have it anew, rename {MINE.name}/{path.name} first.")


def test(full):
    """Every check, also after one that failed; 1 if any did."""
    scale, limit = ("lesson", 1800) if full else ("smoke", 300)
    env, pytest = {**environment(), "FAIRSEG_SCALE": scale, "OMP_NUM_THREADS": "1"}, "pytest -q -n 2 --durations=10"
    checks = ["ruff check .", "ruff format --check .", "mypy", f"{pytest} tests fairseg_lite --doctest-modules"]
    checks += [f"{pytest} --dist loadscope lessons --nbval-lax --nbval-current-env --nbval-cell-timeout={limit}"]
    failed = [c for c in checks if run(PYTHON, "-m", *c.split(), env=env).returncode]
    print("\n".join(f"FAILED: {c}" for c in failed) or "All checks passed.")
    return min(len(failed), 1)


def main(words):
    if sys.version_info < (3, 11):  # noqa: UP036  (that is what it says)
        sys.exit("This course needs Python 3.11 or newer; this is {}.{}.".format(*sys.version_info))
    job, rest = words[0] if words else "", words[1:]
    if job not in JOBS and words not in (["test"], ["test", "--full"]):
        print(__doc__)
        return 2
    if not ready():
        setup()
    if job == "test":
        return test(rest == ["--full"])
    if job == "lab":
        copy_lessons()
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the program that we start
    return run(PYTHON, *JOBS[job].split(), *rest).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("\nStopped. A half-made .venv is made anew by the next call.")
