#!/usr/bin/env bash
# Measures the project on a machine with a GPU: CUDA tests, the benchmark and, with --lego, the LEGO records.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/steps.sh

usage() {
    cat <<'TEXT'
bash tools/gpu_check.sh [--first] [--lego DIR] [--teacher PLY] [--device cuda|cpu] [--tiny] [--output DIR] [--only STEPS] [--parts N]
                        [--minutes N] [--dry-run]

  --first        only what has not run on a GPU yet, within a quarter of an hour, the likeliest to fail first
  --lego DIR     NeRF-synthetic LEGO at 800x800 (transforms_train.json, transforms_test.json): the records too
  --teacher PLY  3D Gaussians of it; without, tools/train_teacher.py fits them first (half an hour)
  --device NAME  cuda (default) or cpu
  --tiny         small sizes and a few seconds of training: whether all runs, in a few minutes on a CPU
  --output DIR   where everything is written (default: gpu_check); DIR/report is small and all that need be kept
  --only STEPS   only those whose names this regular expression matches; --dry-run names all of them
  --parts N      stop after N parts, each under 9 minutes, with status 75; the same command goes on from there
  --minutes N    stop after that time, with status 75 too; what runs then gets 20 s to save
  --dry-run      only say which steps are done and which are to do

Needs the project's packages and pytest, no network, no git. PYTHON names the interpreter (default: python).
Exit status: 0 all done, 1 a step failed, 2 bad input, 75 more parts to do. The table is DIR/report/table.md.
TEXT
}

device=cuda tiny=0 first=0 lego= teacher= output=gpu_check ONLY= PARTS= MINUTES= DRY_RUN=0
value() { [[ $# -ge 2 && -n $2 ]] || fail "$1 needs a value; see --help"; }
while (($#)); do
    case $1 in
        --lego) value "$@"; lego=$2; shift ;;
        --teacher) value "$@"; teacher=$2; shift ;;
        --device) value "$@"; device=$2; shift ;;
        --output) value "$@"; output=$2; shift ;;
        --only) value "$@"; ONLY=$2; shift ;;
        --parts) value "$@"; PARTS=$2; shift ;;
        --minutes) value "$@"; MINUTES=$2; shift ;;
        --tiny) tiny=1 ;;
        --first) first=1 ;;
        --dry-run) DRY_RUN=1 ;;
        --help | -h) usage; exit 0 ;;
        *) fail "unknown option $1; see --help" ;;
    esac
    shift
done
python=${PYTHON:-python}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
STEP_LIMIT=510 TRIES= MOST_PROCESSES=12

[[ $device == cuda || $device == cpu ]] || fail "--device: found $device, expected cuda or cpu"
[[ -z $PARTS || $PARTS =~ ^[1-9][0-9]*$ ]] || fail "--parts: found $PARTS, expected a positive number"
[[ -z $MINUTES || $MINUTES =~ ^[1-9][0-9]*$ ]] || fail "--minutes: found $MINUTES, expected a positive number"
status=0
[[ "" =~ $ONLY ]] || status=$?
((status < 2)) || fail "--only: $ONLY is no regular expression"
[[ $first == 0 || -z $ONLY ]] || fail "--first and --only both choose steps; name one of them"
[[ $first == 0 || -z $lego || -n $teacher ]] || fail "--first has no time to fit Gaussians to LEGO; name some with --teacher"
[[ -z $teacher || -n $lego ]] || fail "--teacher goes with --lego"
[[ -z $teacher || -f $teacher ]] || fail "--teacher: $teacher is no file"
for name in ${lego:+transforms_train.json transforms_test.json}; do
    [[ -f $lego/$name ]] || fail "--lego: $lego has no $name; expected the folder of NeRF-synthetic LEGO"
done
command -v "$python" >/dev/null || fail "no $python; name the interpreter with PYTHON=..."
[[ $DRY_RUN == 1 ]] || "$python" tools/results_table.py --check-device "$device" || exit 2

CODE=$(code_of .)
work=$output/work report=$output/report STAMPS=$output/stamps STEP_LOGS=$output/step_logs
if [[ $DRY_RUN == 0 ]]; then
    mkdir -p "$work" "$report" "$STAMPS" "$STEP_LOGS" || fail "--output: cannot make folders in $output"
    claim_output "$output"
    trap write_report EXIT
fi
failed=()

# attempt NAME COMMAND...: a step that others do not depend on.
attempt() { run_step "$@" || failed+=("$1"); }

# benchmark NAME OPTION...: a part of the benchmark.
benchmark() {
    local name=benchmark_$1
    shift
    attempt "$name" "$python" tools/benchmark.py --device "$device" "${size[@]}" "$@" --csv "$report/$name.csv"
}

# student NAME CONFIG SECONDS [OPTION...]: trains for the time and evaluates, from its last checkpoint if it has one.
student() {
    local name=$1 config=$2 seconds=$3 DONE_TOO=$untaught
    shift 3
    attempt "$name" "$python" lego_response_distill.py --config "$config" --output "$work" --device "$device" \
        --resume auto --set "run=$name" --set "train.max_seconds=$seconds" "$@"
}

# fitted_ply: the PLY that the teacher's step wrote last.
fitted_ply() {
    local folder=$work/results/lego/record_teacher/point_cloud
    [[ ! -d $folder ]] || find "$folder" -name point_cloud.ply | sort -V | tail -n 1
}

lego_records() {
    data=(--set "data.transforms=$(realpath "$lego")/transforms_test.json")
    data+=(--set "data.train_transforms=$(realpath "$lego")/transforms_train.json" "${small[@]}")
    if [[ -z $teacher ]]; then
        run_step record_teacher "$python" tools/train_teacher.py --config configs/records/lego_teacher.yaml \
            --output "$work" --resume --set "device=$fit_on" "${data[@]}" "${small_fit[@]}" ||
            { failed+=(record_teacher); return; }
        teacher=$(fitted_ply)
        [[ -n $teacher ]] || teacher=THE_PLY_OF_record_teacher
    fi
    data+=(--set "teacher.ply=$(realpath --canonicalize-missing "$teacher")" "${small_live[@]}")
    for budget in "${budgets[@]}"; do
        student "record_hash_$budget" configs/records/lego_hash.yaml "$budget" "${data[@]}" "${small_table[@]}"
        student "record_mixed_$budget" configs/records/lego_mixed.yaml "$budget" "${data[@]}" "${small_table[@]}"
    done
    student "record_kilo_$budget" configs/records/lego_kilo.yaml "$budget" "${data[@]}"
    budget=${budgets[0]}
    student "record_planes_$budget" configs/records/lego_hash.yaml "$budget" "${data[@]}" "${small_table[@]}" "${seen[@]}"
    student "record_directions_$budget" configs/records/lego_kilo.yaml "$budget" "${data[@]}" --set student.density_degree=1
    student "record_compact_$budget" configs/records/lego_hash.yaml "$budget" "${data[@]}" "${small_table[@]}" "${seen[@]}" \
        --set student.levels=7 --set student.finest_resolution=512 --set compact.target_mib=1 --set compact.round_every=200
}

# image_records: how many rays of images for each of the teacher's suit a student with planes and directions.
image_records() {
    [[ -n $teacher ]] || return 0  # it could not be fitted
    for weight in 16 4; do
        student "record_images_${weight}_$budget" configs/records/lego_mixed.yaml "$budget" "${data[@]}" "${small_table[@]}" \
            "${seen[@]}" --set "data.ground_truth.weight=$weight"
    done
}

# brick_records: the records' path through the program on the built-in scene.
brick_records() {
    attempt bricks_teacher "$python" tools/train_teacher.py --config configs/quickstart_teacher.yaml --output "$work" \
        --resume --set run=bricks_teacher --set "device=$fit_on" "${small_fit[@]}" "${quick[@]}"
    student bricks_hash configs/quickstart_live.yaml 10 "${quick[@]}"
    student bricks_kilo configs/quickstart_kilo.yaml 10 "${quick[@]}"
}

# compact_runs: students that end as compact files, by recorded steps; the first with planes, both with directions.
compact_runs() {
    local file=(--set compact.target_mib=0.2 --set train.cuda_graphs=true "${quick[@]}")
    student compact_hash configs/quickstart.yaml 20 "${file[@]}" --set "student.planes=[64,192]"
    student compact_kilo configs/quickstart_kilo.yaml 20 "${file[@]}"
}

# Left open on CUDA: where gsplat does not run there, the program says so and fits on the CPU.
fit_on=${device/cuda/auto}
# LPIPS's weights are a download, which a machine without a network waits minutes for.
quick=(--set eval.lpips=false)
budgets=(60 300) small=() small_live=() small_table=() small_fit=() size=() untaught=
seen=(--set "student.planes=[256,768]" --set student.density_degree=2)
tests=(tests/kernels tests/students tests/distill/rendering tests/distill/losses tests/distill/training)
if [[ $tiny == 1 ]]; then
    budgets=(5 10)
    untaught=3  # COLLAPSED: in seconds a student need not have learnt anything
    size=(--tiny)
    tests=(tests/kernels/test_triton_support.py tests/distill/rendering/test_renderer.py)
    small_fit=(--set fitting.max_seconds=8 --set fitting.initial_gaussians=2000 --set data.resolution=64)
    quick+=(--set data.resolution=64 --set teacher.supersample=1)
    small=(--set data.resolution=64 --set "data.frames='::10'")
    small_live=(--set teacher.live.buffer=8)
    small_table=(--set student.table_size=65536)
fi
if [[ $first == 1 ]]; then
    [[ $tiny == 1 ]] || STEP_LIMIT=240 TRIES=1  # what hangs leaves time for the others
    ONLY="^(tests_first|benchmark_(radiance_mlp|muon)|record_(hash|planes|directions|compact|images_[0-9]+)_${budgets[0]}|compact_(hash|kilo))\$"
fi
# Of all tests those that are of more use on a GPU than elsewhere; others compile for GPUs that need not be there.
first_tests=(--ignore=tests/kernels/test_triton_compiles.py -k "triton or cuda or graph or asynchron or deferred")

main() {
    # Without the options of pyproject.toml. Wide kernels take minutes to compile, so side by side where pytest can; as
    # many processes still fit the GPU's memory.
    local beside=() path name
    if "$python" -c "import xdist" 2>/dev/null; then
        beside=(-n "$(($(nproc) < MOST_PROCESSES ? $(nproc) : MOST_PROCESSES))" --dist worksteal)
    fi
    local options=(-o addopts=--import-mode=importlib -p no:cacheprovider "${beside[@]}")
    if [[ $first == 1 ]]; then
        attempt tests_first "$python" -m pytest "${tests[@]}" "${first_tests[@]}" "${options[@]}" \
            --junitxml "$report/tests_first.xml"
    fi
    for path in "${tests[@]}"; do
        name=${path%.py} name=${name//\//_}
        attempt "$name" "$python" -m pytest "$path" "${options[@]}" --junitxml "$report/$name.xml"
    done
    # Each in a process of its own: where one has the GPU fail, the others are measured all the same.
    for kernel in hash_encoding radiance_mlp shading grouped_mlp marching adam muon; do
        benchmark "$kernel" --only "$kernel"
    done
    for kind in hash_grid kilo_uniform; do
        benchmark "$kind" --only training --only rendering --student "$kind"
    done
    student quickstart configs/quickstart.yaml 20 "${quick[@]}"
    if [[ -n $lego ]]; then
        lego_records
    elif [[ $tiny == 1 ]]; then
        brick_records
    fi
    compact_runs
    [[ -z $lego ]] || image_records
    [[ -n $MATCHED ]] || fail "--only: no step's name matches $ONLY; --dry-run without it names them"

    if ((${#failed[@]})); then
        echo "failed: ${failed[*]}" >&2
        return 1
    fi
}

# write_report: what has been measured so far, however the script ends: a machine that is lent keeps nothing.
write_report() {
    (cd "$work" && find . \( -name '*.csv' -o -name versions.json -o -name config.yaml \) -exec cp --parents -t ../report {} +)
    if [[ -n $(find "$report" -name 'tests*.xml' -o -name 'benchmark*.csv' -o -name 'eval_step_*.csv') ]]; then
        "$python" tools/results_table.py "$output" --code "$CODE" --write "$report/table.md"
    fi
}

# Bash reads a script as it runs it: on one line, so that a file changed meanwhile does no harm.
main; exit
