"""tools/gpu_check.sh: its plan, what it refuses, and that steps are done once, in parts, and by one code."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from settings.loading import REPO_ROOT, load_config
from teacher.sources import source_of

SCRIPT = "tools/gpu_check.sh"
KERNELS = ("hash_encoding", "radiance_mlp", "shading", "grouped_mlp", "marching", "adam", "muon")
PARTS = (*KERNELS, "hash_grid", "kilo_uniform")
BENCHMARKS = [f"benchmark_{part}" for part in PARTS]


def bash(*command, **environment):
    """Runs bash in the repository; PYTHON is the interpreter of the tests."""
    variables = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(["bash", *command], cwd=REPO_ROOT, capture_output=True, text=True, env=variables)


@pytest.fixture
def lego(tmp_path):
    folder = tmp_path / "lego"
    folder.mkdir()
    for split in ("train", "test"):
        (folder / f"transforms_{split}.json").write_text("{}")
    return folder


def planned(result):
    assert result.returncode == 0, result.stderr
    return [line.split()[2].rstrip(":") for line in result.stdout.splitlines() if line.startswith("to do")]


def config_of(line):
    """Of a planned run."""
    words = line.partition(": ")[2].split()
    overrides = [after for word, after in zip(words, words[1:], strict=False) if word == "--set"]
    return load_config(REPO_ROOT / words[words.index("--config") + 1], overrides)


def test_the_plan_of_a_try_on_the_cpu_writes_nothing(tmp_path):
    output = tmp_path / "out"
    result = bash(SCRIPT, "--device", "cpu", "--tiny", "--output", str(output), "--dry-run")
    assert planned(result) == [
        *("tests_kernels_test_triton_support", "tests_distill_rendering_test_renderer"),
        *BENCHMARKS,
        *("quickstart", "bricks_teacher", "bricks_hash", "bricks_kilo", "compact_hash", "compact_kilo"),
    ]
    assert not output.exists()


@pytest.mark.parametrize("options", [[], ["--tiny"]])
def test_the_tests_it_runs_are_there_and_fit_its_parts(options, tmp_path):
    result = bash(SCRIPT, "--device", "cpu", "--output", str(tmp_path / "out"), "--dry-run", *options)
    commands = [line for line in result.stdout.splitlines() if "-m pytest" in line]
    paths = [REPO_ROOT / re.search(r"-m pytest (\S+)", command)[1] for command in commands]
    for path in paths:
        files = [path] if path.is_file() else sorted(path.rglob("test_*.py"))
        assert files and any(_tests_of(file) for file in files), path
    if not options:
        assert REPO_ROOT / "tests/distill/training" in paths and _tests_of(paths[0] / "optimization/test_adam.py")
    processes = [int(re.search(r"-n (\d+) ", command)[1]) for command in commands]
    assert all(1 <= count <= 12 for count in processes), "wide kernels take minutes to compile: side by side"


def _tests_of(file: Path) -> list[str]:
    """Names of what pytest collects in a file, whose import is not tried."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def test_the_plan_of_the_records(tmp_path, lego):
    result = bash(SCRIPT, "--device", "cpu", "--lego", str(lego), "--output", str(tmp_path / "out"), "--dry-run")
    assert planned(result)[5 : 5 + len(BENCHMARKS)] == BENCHMARKS
    assert planned(result)[5 + len(BENCHMARKS) :] == [
        *("quickstart", "record_teacher", "record_hash_60", "record_mixed_60", "record_hash_300", "record_mixed_300"),
        *("record_kilo_300", "record_planes_60", "record_directions_60", "record_compact_60"),
        *("compact_hash", "compact_kilo", "record_images_16_60", "record_images_4_60"),
    ]
    line = next(line for line in result.stdout.splitlines() if "record_hash_60" in line)
    assert f"data.transforms={lego}/transforms_test.json" in line and "train.max_seconds=60" in line
    ply = tmp_path / "point_cloud.ply"
    ply.touch()
    given = bash(SCRIPT, "--device", "cpu", "--lego", str(lego), "--teacher", str(ply), "--dry-run")
    assert "record_teacher" not in planned(given) and f"teacher.ply={ply}" in given.stdout


@pytest.mark.parametrize("options", [[], ["--tiny"]])
def test_the_commands_of_the_records_are_settings_that_their_configs_have(options, tmp_path, lego):
    ply = tmp_path / "point_cloud.ply"
    ply.touch()
    records = ["--device", "cpu", "--lego", str(lego), "--teacher", str(ply), "--dry-run", *options]
    lines = [line for line in bash(SCRIPT, *records).stdout.splitlines() if ": " in line and "record_" in line]
    assert len(lines) == 10
    for line in lines:
        config = config_of(line)
        assert config.run == line.split()[2].rstrip(":") and config.teacher.ply == ply
        # Drawn on a CPU before the first step: 128 views took longer than all else of a try.
        assert config.live.buffer <= 8 or not options


def test_it_trains_what_a_student_can_have_to_a_compact_file_too(tmp_path):
    lines = bash(SCRIPT, "--device", "cpu", "--output", str(tmp_path / "out"), "--dry-run").stdout.splitlines()
    for kind in ("hash", "kilo"):
        (line,) = (line for line in lines if f"compact_{kind}:" in line)
        config = config_of(line)
        assert config.compact.target_mib == 0.2 and config.train.cuda_graphs and config.student.density_degree
        assert kind == "kilo" or config.student.planes


@pytest.mark.parametrize("options", [[], ["--tiny"]])
def test_no_run_asks_for_a_download(options, tmp_path, lego):
    """A machine without a network would wait minutes for LPIPS's weights."""
    (tmp_path / "point_cloud.ply").touch()
    given = ["--lego", str(lego), "--teacher", str(tmp_path / "point_cloud.ply")]
    plans = [bash(SCRIPT, "--device", "cpu", "--dry-run", *options, *more).stdout for more in ([], given)]
    lines = [line for plan in plans for line in plan.splitlines() if "--config" in line]
    assert len(lines) >= 13 and not any(config_of(line).eval.lpips_nets for line in lines)


@pytest.mark.parametrize("name", ["hash", "mixed", "kilo", "teacher"])
def test_the_configs_of_the_records_are_full_size_and_end_by_time(name, tmp_path):
    config = load_config(REPO_ROOT / f"configs/records/lego_{name}.yaml", assets=tmp_path)
    assert config.data.resolution is None and config.eval.splits == ("holdout",)
    source = source_of(config)
    assert source.training_poses() == tmp_path / "data/lego/transforms_train.json"
    if name == "teacher":
        assert config.fitting.max_seconds and config.fitting.checkpoint_every
        return
    assert config.train.max_seconds == 300 and config.live and config.teacher.outputs is None
    assert (source.image_poses() is not None) == (name == "mixed")
    assert (config.student.kind == "kilo_uniform") == (name == "kilo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "tpu"], "--device: found tpu, expected cuda or cpu"),
        (["--lego", "nowhere"], "--lego: nowhere has no transforms_train.json"),
        (["--teacher", "tools/steps.sh"], "--teacher goes with --lego"),
        (["--parts", "0"], "--parts: found 0, expected a positive number"),
        (["--minutes", "half"], "--minutes: found half, expected a positive number"),
        (["--only", "(muon"], "--only: (muon is no regular expression"),
        (["--first", "--only", "muon"], "--first and --only both choose steps"),
        (["--first", "--lego", "."], "--first has no time to fit Gaussians to LEGO; name some with --teacher"),
        (["--only", "moun", "--dry-run"], "--only: no step's name matches moun"),
        (["--output"], "--output needs a value"),
        (["--tinny"], "unknown option --tinny"),
    ],
)
def test_bad_options_are_named(options, message):
    result = bash(SCRIPT, *options)
    assert result.returncode == 2 and message in result.stderr


def steps(folder: Path, commands: str, *, code="commit a", limit=5, parts="", tries="", minutes="", only=""):
    """Runs ``commands`` with the functions of steps.sh, its folders under ``folder``."""
    for name in ("stamps", "logs"):
        (folder / name).mkdir(exist_ok=True)
    set_up = f'''set -euo pipefail; source tools/steps.sh; STAMPS={folder}/stamps STEP_LOGS={folder}/logs
        CODE="{code}" STEP_LIMIT={limit} ONLY="{only}" PARTS={parts} TRIES={tries}
        MINUTES={minutes} DRY_RUN=0'''
    return bash("-c", f"{set_up}\ncd {folder}\n{commands}")


def test_a_step_is_done_once_and_its_stamp_names_the_code(tmp_path):
    commands = "run_step first bash -c 'echo x >> ran'; run_step second true"
    assert steps(tmp_path, commands).returncode == 0
    again = steps(tmp_path, commands)
    assert (tmp_path / "ran").read_text() == "x\n"
    assert [line.split()[:2] for line in again.stdout.splitlines()] == [["done", "first"], ["done", "second"]]
    assert (tmp_path / "stamps/first").read_text().startswith("commit a\n20")


def test_steps_that_are_not_asked_for_are_passed_over(tmp_path):
    result = steps(tmp_path, "run_step one false; run_step two true; run_step one_more true", only="^(two|one_more)$")
    assert result.returncode == 0, result.stderr
    assert sorted(file.name for file in (tmp_path / "stamps").iterdir()) == ["one_more", "two"]


def test_the_first_steps_on_a_gpu_are_those_that_docs_name_in_their_order(tmp_path, lego):
    text = (REPO_ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    named = re.findall(r"^\d+\. `([a-z_0-9]+)`", text, re.MULTILINE)
    ply = tmp_path / "point_cloud.ply"
    ply.touch()
    first = (SCRIPT, "--first", "--device", "cpu", "--dry-run")
    result = bash(*first, "--lego", str(lego), "--teacher", str(ply))
    assert planned(result) == named and len(named) > 8
    (tests,) = (line for line in result.stdout.splitlines() if " tests_first: " in line)
    ignored = re.search(r"--ignore=(\S+)", tests)[1]
    assert (REPO_ROOT / ignored).is_file() and "cuda" in tests
    # Without the data, what needs none.
    assert planned(bash(*first)) == [name for name in named if not name.startswith("record_")]
    tried = bash(*first, "--tiny", "--lego", str(lego), "--teacher", str(ply))
    assert planned(tried) == [name.replace("_60", "_5") for name in named]


def test_a_failed_step_has_no_stamp_shows_its_log_and_is_tried_again(tmp_path):
    result = steps(tmp_path, "run_step bad bash -c 'echo why; exit 3' || echo went on")
    assert "went on" in result.stdout and "status 3" in result.stderr and "why" in result.stderr
    assert not (tmp_path / "stamps/bad").exists()
    assert steps(tmp_path, "run_step bad true").returncode == 0 and (tmp_path / "stamps/bad").exists()


@pytest.mark.parametrize(("also", "done"), [("3", True), ("4", False), ("", False)])
def test_a_step_may_be_done_with_another_status_than_0(tmp_path, also, done):
    result = steps(tmp_path, f"DONE_TOO={also}; run_step untaught bash -c 'exit 3' || echo failed")
    assert (tmp_path / "stamps/untaught").exists() == done and ("failed" in result.stdout) != done


def test_a_try_in_seconds_does_not_ask_what_students_have_learnt(tmp_path):
    """On a busy machine five seconds are a few steps."""
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\ncase "$*" in *lego_response_distill.py*) exit 3 ;; esac\n')
    python.chmod(0o755)
    asked = ("--device", "cpu", "--only", "^(benchmark_adam|quickstart)$", "--output", str(tmp_path / "out"))
    assert bash(SCRIPT, *asked, "--tiny", PYTHON=str(python)).returncode == 0
    real = bash(SCRIPT, *asked[:-1], str(tmp_path / "other"), PYTHON=str(python))
    assert real.returncode == 1 and "failed: quickstart" in real.stderr


def test_a_step_past_its_limit_is_interrupted_and_goes_on_in_another_part(tmp_path):
    (tmp_path / "long.py").write_text(
        "import pathlib, time\n"
        "saved = pathlib.Path('saved')\n"
        "if saved.exists():\n    raise SystemExit(0)\n"
        "try:\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    saved.touch()\n    raise SystemExit(130)\n"
    )
    result = steps(tmp_path, f"run_step long {sys.executable} long.py", limit=1)
    assert result.returncode == 0, result.stderr
    assert "part 2" in result.stdout and (tmp_path / "stamps/long").exists()


def test_what_hangs_takes_no_more_tries_than_it_may_and_leaves_time_for_others(tmp_path):
    result = steps(tmp_path, "run_step hangs sleep 60 || echo went on; run_step next true", limit=1, tries="1")
    assert result.returncode == 0 and "went on" in result.stdout
    assert "hangs: not finished after 1 parts of 1 s" in result.stderr and (tmp_path / "stamps/next").exists()


def test_what_the_end_of_a_call_cuts_off_has_not_failed(tmp_path):
    commands = "timeout() { return 124; }; run_step long true || echo failed"
    result = steps(tmp_path, commands, limit=100, tries="1", minutes="1")
    assert result.returncode == 75 and "to do    long" in result.stdout and "failed" not in result.stdout


def test_parts_are_limited_and_the_next_call_goes_on(tmp_path):
    commands = "run_step one true; run_step two true; echo all"
    first = steps(tmp_path, commands, parts="1")
    assert first.returncode == 75 and "to do    two" in first.stdout
    second = steps(tmp_path, commands, parts="1")
    assert second.returncode == 0 and second.stdout.splitlines()[-1] == "all"


def test_no_part_is_begun_when_a_calls_time_is_nearly_over(tmp_path):
    commands = "run_step one true; SECONDS={}; run_step two true; echo all"
    first = steps(tmp_path, commands.format(20), minutes="1")
    assert first.returncode == 75 and "to do    two; run the same command again" in first.stdout
    assert steps(tmp_path, commands.format(10), minutes="1").stdout.splitlines()[-1] == "all"


def test_the_report_has_what_was_measured_also_where_the_time_is_over(tmp_path):
    python, output = tmp_path / "python", tmp_path / "out"
    python.write_text(
        "#!/bin/bash\nwhile (($#)); do\n    case $1 in\n"
        '        --csv | --write) echo measured >"$2" ;;\n'
        '        --output) mkdir -p "$2/logs/bricks/run" && echo step >"$2/logs/bricks/run/eval_step_000001.csv" ;;\n'
        "    esac\n    shift\ndone\n"
    )
    python.chmod(0o755)
    asked = ("--only", "^(benchmark_adam|quickstart|compact_hash)$", "--parts", "2")
    result = bash(SCRIPT, "--device", "cpu", "--output", str(output), *asked, PYTHON=str(python))
    assert result.returncode == 75 and "to do    compact_hash" in result.stdout, result.stderr
    files = ("benchmark_adam.csv", "logs/bricks/run/eval_step_000001.csv", "table.md")
    assert [name for name in files if not (output / "report" / name).is_file()] == []


def test_an_output_folder_belongs_to_one_code(tmp_path):
    assert steps(tmp_path, f"claim_output {tmp_path}").returncode == 0
    assert steps(tmp_path, f"claim_output {tmp_path}").returncode == 0
    other = steps(tmp_path, f"claim_output {tmp_path}", code="commit b")
    assert other.returncode == 2 and "holds results of other code (commit a), this is commit b" in other.stderr


def test_the_code_of_a_copy_without_git_follows_its_files(tmp_path):
    sources = ("configs", "distill", "kernels", "machine", "scene", "settings", "students", "teacher", "tests", "tools")
    for name in sources:
        (tmp_path / name).mkdir()
    files = [*(f"{name}/a.py" for name in sources), "lego_response_distill.py"]
    for name in files:
        (tmp_path / name).write_text("1")
    codes = [steps(tmp_path, f"code_of {tmp_path}").stdout]
    for name in files:
        (tmp_path / name).write_text("2")
        codes.append(steps(tmp_path, f"code_of {tmp_path}").stdout)
    assert all(code.startswith("sources ") for code in codes) and len(set(codes)) == len(codes)
