"""The course, in one command each (Python's standard library only):

python3 course.py lab           open the lessons in JupyterLab
python3 course.py test          everything CI checks; --full runs the lessons as long as their readers do
python3 course.py demo          the pipeline on a picture: look into out/demo
python3 course.py shell         a Python prompt with the library
python3 course.py setup         only make .venv
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "course-stamp"
FITS = "import torch, torchvision; torchvision.ops.nms(torch.eye(1, 4), torch.ones(1), 0.5)"
JOBS = ("lab", "test", "demo", "shell", "setup")


def environment():
    """Where jobs run: bytecode is kept (imports are several times faster), and pip looks at its index alone.

    A pip configuration may add folders of wheels or constraints, and so pick a torch that torchvision cannot work with.
    Only the addresses of the index and of its proxy and certificate are taken over from it.
    """
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME")}
    for key in ("PIP_FIND_LINKS", "PIP_CONSTRAINT", "PIP_NO_INDEX", "PIP_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_CONSTRAINT"):
        env.pop(key, None)
    for option in ("index-url", "cert", "proxy", "trusted-host"):
        key = "PIP_" + option.replace("-", "_").upper()
        for section in ("global", "install"):
            found = subprocess.run([sys.executable, "-m", "pip", "config", "get", section + "." + option], capture_output=True, text=True)
            if found.returncode == 0 and found.stdout.strip():
                env.setdefault(key, found.stdout.strip())
    env["PIP_CONFIG_FILE"] = os.devnull
    env["VIRTUAL_ENV"] = str(VENV)
    env["PATH"] = str(PYTHON.parent) + os.pathsep + env.get("PATH", "")
    return env


def stamp():
    """What .venv was made from; another Python, place or list of packages makes it anew."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + sys.version + str(ROOT)
    return hashlib.sha256(text.encode()).hexdigest()


def ready():
    """True when .venv is whole and up to date."""
    return STAMP.is_file() and STAMP.read_text() == stamp() and works("pass")


def works(code):
    try:
        return subprocess.run([str(PYTHON), "-c", code], env=environment(), capture_output=True).returncode == 0
    except OSError:
        return False


def setup():
    """Make .venv, or repair it, and install the project with everything lessons and tests need."""
    if ready():
        return
    started, env, uv = time.time(), environment(), shutil.which("uv")
    print("Setting up .venv with {} (about 5 GB on disk; 1 minute with uv, 3 to 5 with pip) ...".format("uv" if uv else "pip"), flush=True)
    STAMP.unlink(missing_ok=True)
    whole = works("import sys; assert sys.version == {!r}".format(sys.version))
    if uv:
        if not whole:
            run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(VENV)], env)
        run([uv, "pip", "install", "--quiet", "--python", str(PYTHON), "-e", ".[lab,test]"], env)
    else:
        if not whole or not works("import pip"):
            run([sys.executable, "-m", "venv", "--clear", str(VENV)], env)
        run([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", ".[lab,test]"], env)
    fits = subprocess.run([str(PYTHON), "-c", FITS], env=env, capture_output=True, text=True)
    if fits.returncode:
        sys.exit("torch and torchvision do not fit each other ({}). Remove .venv, check for a pip or uv setting that pins "
                 "one of them, and run this again.".format((fits.stderr.strip().splitlines() or ["no message"])[-1]))  # fmt: skip
    STAMP.write_text(stamp())
    print("Ready after {:.0f} s; the next start takes seconds.".format(time.time() - started), flush=True)


def run(command, env):
    """One step of the set-up; a failure ends it with one line."""
    try:
        code = subprocess.run(command, env=env, cwd=ROOT).returncode
    except OSError as error:
        code = error
    if code:
        free = shutil.disk_usage(ROOT).free / 1e9
        sys.exit("Set-up failed: {} ({}). {:.0f} GB are free here, 6 are needed; is the network there? Run it again to go on.".format(
            " ".join(command[:4]), code, free))  # fmt: skip


def test(full):
    """ruff, unit tests, doctests, lessons: all of them, even after a failure."""
    python, env = [str(PYTHON), "-m"], dict(environment(), FAIRSEG_SCALE="lesson" if full else "smoke")
    steps = [
        python + ["ruff", "check", "."],
        python + ["ruff", "format", "--check", "."],
        python + ["pytest", "-q", "tests", "fairseg_lite", "--doctest-modules", "--durations=10"],
    ]
    if list((ROOT / "lessons").glob("*.ipynb")):
        nbval = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout={}".format(1800 if full else 300)]
        steps.append(python + ["pytest", "-q", "lessons", "--durations=10", "-p", "no:doctest"] + nbval)
    failed = [step for step in steps if subprocess.run(step, cwd=ROOT, env=env).returncode]
    for step in failed:
        print("FAILED: " + " ".join(["python"] + step[1:]))
    return len(failed)


def main(arguments):
    if sys.version_info < (3, 11):
        return "This course needs Python 3.11 or newer; this is {}.{}.".format(*sys.version_info[:2])
    job, rest = (arguments[0] if arguments else ""), arguments[1:]
    if job not in JOBS or (job == "test" and rest not in ([], ["--full"])):
        print(__doc__)
        return 2
    setup()
    if job == "setup":
        return 0
    if job == "test":
        return min(test(rest == ["--full"]), 1)
    commands = {
        "lab": [str(PYTHON), "-m", "jupyterlab", "lessons", "--LabApp.default_url=/lab/tree/00_start_here.ipynb"] + rest,
        "demo": [str(PYTHON), "-m", "fairseg_lite.cli", "demo"] + rest,
        "shell": [str(PYTHON), "-m", "IPython"] + rest,
    }
    return subprocess.run(commands[job], cwd=ROOT, env=environment()).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
