# Steps that are each done once, in parts of limited length. Sourced by gpu_check.sh; it runs nothing by itself.
#
# The caller sets: STAMPS and STEP_LOGS (folders that exist), CODE (a line that names the code), STEP_LIMIT (s),
# ONLY (a regular expression: steps whose names it does not match are passed over), PARTS (how many parts this call may
# still run; empty: any), TRIES (how many of one step; empty: MOST_PARTS), MINUTES (how long it may go on in all; empty:
# any), DRY_RUN (1: only say what is to do), and for a step that may end so, DONE_TOO (an exit status other than 0).

readonly MOST_PARTS=20      # of one step: more means that it does not get anywhere
readonly LEAST_SECONDS=45   # with less time left no part is begun
readonly OUT_OF_PARTS=75    # exit status: not all is done, and another call goes on
MATCHED=                    # 1: a step has been met that is not passed over

fail() {
    echo "error: $*" >&2
    exit 2
}

# go_on_later NAME: ends a call that may run no more parts.
go_on_later() {
    echo "to do    $1; run the same command again to go on"
    exit "$OUT_OF_PARTS"
}

# run_step NAME COMMAND...: runs the command unless the step has its stamp. A part that reaches STEP_LIMIT is
# interrupted as by Ctrl-C, and the command is run again, so it has to go on from what it saved. Returns 1 if it fails.
run_step() {
    local name=$1 status part limit most=${TRIES:-$MOST_PARTS}
    shift
    [[ $name =~ $ONLY ]] || return 0
    MATCHED=1
    if [[ -f $STAMPS/$name ]]; then
        echo "done     $name ($(sed -n 2p "$STAMPS/$name"))"
        return 0
    fi
    if [[ $DRY_RUN == 1 ]]; then
        echo "to do    $name: $*"
        return 0
    fi
    for ((part = 1; part <= most; part++)); do
        if [[ -n $PARTS ]]; then
            ((PARTS > 0)) || go_on_later "$name"
            PARTS=$((PARTS - 1))
        fi
        limit=$STEP_LIMIT
        if [[ -n $MINUTES ]]; then
            limit=$((MINUTES * 60 - SECONDS))
            ((limit >= LEAST_SECONDS)) || go_on_later "$name"
            ((limit <= STEP_LIMIT)) || limit=$STEP_LIMIT
        fi
        echo "running  $name, part $part"
        status=0
        timeout --signal=INT --kill-after=20 "$limit" "$@" >>"$STEP_LOGS/$name.log" 2>&1 || status=$?
        case $status in
            0 | "${DONE_TOO:-0}")
                printf '%s\n%s\n' "$CODE" "$(date -u +%FT%TZ)" >"$STAMPS/.$name.tmp"
                mv "$STAMPS/.$name.tmp" "$STAMPS/$name"
                return 0
                ;;
            124 | 137) ((limit == STEP_LIMIT)) || go_on_later "$name" ;;
            *)
                echo "failed   $name: status $status; the end of $STEP_LOGS/$name.log:" >&2
                tail -n 15 "$STEP_LOGS/$name.log" >&2
                return 1
                ;;
        esac
    done
    echo "failed   $name: not finished after $most parts of $STEP_LIMIT s; see $STEP_LOGS/$name.log" >&2
    return 1
}

# claim_output FOLDER: refuses a folder with results of other code, which a resumed step would mix with this one's.
claim_output() {
    local of=$1/code.txt
    if [[ -f $of && $(<"$of") != "$CODE" ]]; then
        fail "$1 holds results of other code ($(<"$of")), this is $CODE; name another folder with --output"
    fi
    echo "$CODE" >"$of"
}

# code_of FOLDER: the commit, where git knows it, and a digest of the sources, which tells changed files apart.
code_of() (
    cd "$1"
    local commit=
    if [[ -e .git ]] && command -v git >/dev/null; then
        commit="commit $(git rev-parse --short=12 HEAD), "
    fi
    echo "${commit}sources $(find configs distill kernels machine scene settings students teacher tests tools \
        lego_response_distill.py -type f \( -name '*.py' -o -name '*.yaml' -o -name '*.sh' \) -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-12)"
)
