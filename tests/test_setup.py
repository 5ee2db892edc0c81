"""Set-up: both lists of packages agree, CI runs what the README says, `course.py` makes, checks and repairs .venv."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from rattler import MatchSpec
from rattler.exceptions import InvalidMatchSpecError

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}  # where conda-forge has another name


def conda_floors() -> dict[str, str]:
    """{package: ">=floor"} of environment.yml; every entry has to be a spec that conda reads."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    specs = [MatchSpec(e) for e in entries if isinstance(e, str) and e != "pip"]
    return {s.name.as_package_name().normalized: str(s.version) for s in specs}


def test_environment_yml_asks_for_the_packages_and_floors_of_pyproject():
    extras = PROJECT["optional-dependencies"]
    wanted = [Requirement(r) for r in PROJECT["dependencies"] + extras["lab"] + extras["test"]]
    floors = {CONDA.get(r.name, r.name): str(r.specifier) for r in wanted if r.name != PROJECT["name"]}
    assert conda_floors() == {"python": PROJECT["requires-python"], **floors}
    assert all(re.fullmatch(r">=[\d.]+", floor) for floor in floors.values()), "lower bounds only"


def test_environment_yml_comes_from_conda_forge_and_installs_the_project_itself():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert environment["dependencies"][-2:] == ["pip", {"pip": ["--no-deps", "-e ."]}]
    with pytest.raises(InvalidMatchSpecError):  # the parser does refuse what conda would
        MatchSpec("python>>=3")


def test_ci_runs_exactly_the_readmes_test_command():
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    told = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    script = (ROOT / ".ci/run").read_text("utf-8").splitlines()
    assert script[-1] in told
    assert script[-1] == "python3 course.py test"
    assert all(line.startswith(("#", "set ", "cd ")) for line in script[:-1]), "nothing but the command"
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]["test"]
    assert workflow["steps"][-1] == {"run": "bash .ci/run"}
    assert workflow["strategy"]["matrix"]["python"][0] == PROJECT["requires-python"].removeprefix(">=")


@pytest.fixture
def course(tmp_path, monkeypatch):
    """course.py with its .venv in a temporary folder, and commands recorded instead of run.

    `course.codes` maps a word of a command to the exit code it shall have; `course.told` collects (command, env).
    """
    spec = importlib.util.spec_from_file_location("course", ROOT / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    venv = tmp_path / ".venv"
    python = venv / Path(module.PYTHON).relative_to(module.VENV)
    for name, value in {
        "VENV": venv,
        "PYTHON": str(python),
        "MADE_FROM": venv / "made-from.txt",
        "MINE": tmp_path / "mine",
    }.items():
        monkeypatch.setattr(module, name, value)
    module.told, module.codes, module.pip_says = [], {}, ""

    def run(*command, env=None, **options):
        module.told.append((command, env))
        if "venv" in command:
            python.parent.mkdir(parents=True)
            python.symlink_to(sys.executable)
        code = next((code for word, code in module.codes.items() if any(word in c for c in command)), 0)
        said = module.pip_says if "config" in command else ""
        return subprocess.CompletedProcess(command, code, said, "Traceback\nRuntimeError: operator nms does not exist\n")

    module.really_run = module.run
    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    return module


@pytest.mark.parametrize("words", [[], ["tset"], ["test", "--fast"], ["--help"]])
def test_anything_but_a_job_prints_the_jobs_and_makes_nothing(course, capsys, words):
    assert course.main(words) == 2
    said = capsys.readouterr().out
    assert all(f"python3 course.py {job}" in said for job in ("lab", "test", "book", "slides", "demo", "shell"))
    assert not course.told
    assert not course.VENV.exists()


def test_an_old_python_is_named(course, monkeypatch):
    monkeypatch.setattr(course.sys, "version_info", (3, 10))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer; this is 3\.10"):
        course.main(["shell"])


def test_setup_makes_a_venv_once(course, capsys):
    assert course.main(["shell", "-c", "pass"]) == 0
    commands = [" ".join(c) for c, _ in course.told]
    assert [c for c in commands if "-m venv" in c or "install" in c] == [
        f"{getattr(sys, '_base_executable', sys.executable)} -m venv {course.VENV}",
        f"{course.PYTHON} -m pip install --quiet -e .[lab,test]",
    ]
    assert commands[-1] == f"{course.PYTHON} -m IPython -c pass"
    said = capsys.readouterr().out
    assert "5 GB" in said
    assert "minutes" in said
    course.told.clear()
    assert course.main(["shell"]) == 0
    assert len(course.told) == 2, "a look into .venv, and the job"
    assert capsys.readouterr().out == ""


def test_uv_is_used_where_it_is(course, monkeypatch):
    monkeypatch.setattr(course.shutil, "which", lambda name: f"/bin/{name}")
    course.setup()
    assert [c[:3] for c, _ in course.told[:2]] == [("/bin/uv", "venv", "--quiet"), ("/bin/uv", "pip", "install")]
    assert course.told[1][0][-2:] == ("--python", course.PYTHON)


def test_a_half_made_venv_is_made_anew(course):
    course.codes = {"install": 1}
    with pytest.raises(SystemExit, match="Set-up failed.*GB of disk are free"):
        course.main(["shell"])
    (course.VENV / "half.whl").write_text("", "utf-8")
    assert Path(course.PYTHON).exists()
    assert not course.ready()
    course.codes = {}
    assert course.main(["shell"]) == 0
    assert course.ready()
    assert not (course.VENV / "half.whl").exists()


def test_a_venv_of_another_python_or_list_of_packages_or_with_holes_is_made_anew(course):
    course.setup()
    assert course.ready()
    text = course.MADE_FROM.read_text("utf-8")
    for other in (text.replace(repr(sys.version), "'3.9.0'"), text.replace("safetensors>=", "safetensors>=9")):
        course.MADE_FROM.write_text(other, "utf-8")
        assert other != text
        assert not course.ready()
    course.MADE_FROM.write_text(text, "utf-8")
    assert course.ready()
    course.run, course.PYTHON = course.really_run, sys.executable  # which has all packages
    course.MADE_FROM.write_text(course.source(), "utf-8")
    assert course.ready()
    course.WHOLE = course.WHOLE.replace("nbval", "no_such_package")
    assert not course.ready()


def test_torch_and_torchvision_that_do_not_fit_are_named_and_not_kept(course):
    course.codes = {"nms": 1}
    with pytest.raises(SystemExit, match=r"do not fit each other \(RuntimeError: operator nms does not exist\)"):
        course.setup()
    assert not course.ready()
    exec(course.FITS)  # torch and torchvision of this test do


def test_environment_drops_what_picks_other_wheels_and_keeps_the_way_to_the_index(course, monkeypatch):
    drop = (
        "PIP_FIND_LINKS",
        "PIP_EXTRA_INDEX_URL",
        "PIP_CONSTRAINT",
        "UV_FIND_LINKS",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONPATH",
    )
    keep = ("PIP_INDEX_URL", "PIP_CERT", "HTTPS_PROXY", "HOME")
    for name in drop + keep:
        monkeypatch.setenv(name, "/some/where")
    env = course.environment()
    assert not set(drop) & set(env)
    assert {env[name] for name in keep} == {"/some/where"}
    assert env["PATH"].split(os.pathsep)[0] == str(Path(course.PYTHON).parent)


def test_a_pip_configuration_keeps_index_certificate_and_proxy_only(course, monkeypatch):
    for name in [k for k in os.environ if k.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_PROXY", "http://mine")  # goes before the file
    course.pip_says = (
        ":env:.find-links='/wheels'\nglobal.cert='/a.pem'\nglobal.extra-index-url='file:///x file:///y'\n"
        "global.find-links='/wheels'\nglobal.index-url='https://first'\nglobal.proxy='http://theirs'\n"
        "global.trusted-host='a\\nb'\ninstall.index-url='https://second'\nlist.format='columns'\n"
    )
    assert {k: v for k, v in course.pip_environment().items() if k.startswith("PIP_")} == {
        "PIP_CERT": "/a.pem",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "https://second",
        "PIP_PROXY": "http://mine",
        "PIP_TRUSTED_HOST": "a\nb",
    }


def test_pip_itself_reads_its_files_as_we_think(course, monkeypatch, tmp_path):
    pytest.importorskip("pip", reason="uv makes environments without pip")
    (tmp_path / "pip.conf").write_text(
        "[global]\nfind-links = /wheels\ntimeout = 77\n[install]\nproxy = http://theirs\n", "utf-8"
    )
    for name in [k for k in os.environ if k.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    course.run, course.PYTHON = course.really_run, sys.executable
    env = course.pip_environment()
    assert (env["PIP_TIMEOUT"], env["PIP_PROXY"], env["PIP_CONFIG_FILE"]) == ("77", "http://theirs", os.devnull)
    assert "PIP_FIND_LINKS" not in env


def test_lab_opens_copies_without_outputs_and_never_overwrites_one(course, capsys, monkeypatch, tmp_path):
    assert course.main(["lab"]) == 0
    assert "jupyterlab my-lessons" in " ".join(course.told[-1][0])
    lessons = sorted((ROOT / "lessons").glob("*.ipynb"))
    assert [p.name for p in sorted(course.MINE.glob("*.ipynb"))] == [p.name for p in lessons]
    mine, lesson = (json.loads((folder / lessons[3].name).read_text("utf-8")) for folder in (course.MINE, ROOT / "lessons"))
    assert [c["source"] for c in mine["cells"]] == [c["source"] for c in lesson["cells"]]
    code = [c for c in mine["cells"] if c["cell_type"] == "code"]
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in code)
    written = (course.MINE / lessons[3].name).read_text("utf-8").replace("return ...", "return 42")
    (course.MINE / lessons[3].name).write_text(written, "utf-8")
    capsys.readouterr()
    assert course.main(["lab"]) == 0
    assert (course.MINE / lessons[3].name).read_text("utf-8") == written
    assert capsys.readouterr().out == ""

    (tmp_path / "lessons").mkdir()
    lesson["cells"][0]["source"] = ["# better"]
    (tmp_path / "lessons" / lessons[3].name).write_text(json.dumps(lesson), "utf-8")
    monkeypatch.setattr(course, "ROOT", tmp_path)
    course.copy_lessons()
    assert (course.MINE / lessons[3].name).read_text("utf-8") == written
    assert f"{lessons[3].name} has changed since your copy was made" in capsys.readouterr().out


@pytest.mark.parametrize("words, scale, limit", [(["test"], "smoke", "=300"), (["test", "--full"], "lesson", "=1800")])
def test_the_test_job_goes_on_after_a_failure_and_names_it(course, capsys, words, scale, limit):
    course.setup()
    course.told.clear()
    assert course.main(words) == 0
    checks = [" ".join(c[2:]) for c, _ in course.told[1:]]
    assert checks[:3] == ["ruff check .", "ruff format --check .", "mypy"]
    assert checks[3].startswith("pytest ")
    assert checks[3].endswith("tests fairseg_lite --doctest-modules")
    assert checks[4].endswith("lessons --nbval-lax --nbval-current-env --nbval-cell-timeout" + limit)
    assert len(checks) == 5
    assert {env["FAIRSEG_SCALE"] for _, env in course.told[1:]} == {scale}
    assert "All checks passed." in capsys.readouterr().out
    course.told.clear()
    course.codes = {"format": 1, "--nbval-lax": 3}
    assert course.main(words) == 1
    assert len(course.told) == 6, "every check ran"
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED: ")]
    assert [line.split()[1] for line in failed] == ["ruff", "pytest"]
    assert "--nbval-lax" in failed[1]


def test_the_workflow_tries_the_oldest_and_the_newest_packages():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text("utf-8"))["jobs"]
    tried = {row["resolution"]: row["python"] for row in jobs["versions"]["strategy"]["matrix"]["include"]}
    assert set(tried) == {"lowest-direct", "highest"}
    assert tried["lowest-direct"] == PROJECT["requires-python"].removeprefix(">=")
    named = re.findall(r"[\w/.]+\.(?:py|txt)\b", " ".join(step.get("run", "") for step in jobs["reading"]["steps"]))
    assert len(named) >= 4 and all((ROOT / name).is_file() for name in named)
    said = " ".join(step.get("run", "") for step in jobs["reading"]["steps"])
    assert "onnx,judge" in said and {"tests/cli/test_export.py", "tests/evaluation/test_fast.py"} <= set(named), "not skipped"
