# shellcheck shell=bash
# Shared by quickstart and run-tests: messages, packages, a Python that is new enough.
# Sourced by bash with `set -euo pipefail`. LOG is where the output of steps goes.

say() { printf '==> %s\n' "$*"; }
note() { printf '    %s\n' "$*"; }

# die WHAT NEXT-STEP: the only way these scripts fail on purpose.
die() {
    printf '\n%s: %s\n' "$(basename "$0")" "$1" >&2
    [ $# -lt 2 ] || printf '  What to do: %s\n' "$2" >&2
    exit 1
}

# Nothing ends without a word, not even what nobody thought of.
set -E
trap 'die "line $LINENO failed: $BASH_COMMAND" "see ${LOG:-the lines above}, then run it again"' ERR

# step DESCRIPTION NEXT-STEP COMMAND...: runs it with its output in LOG; shows the end of that on
# failure.
step() {
    local what=$1 next=$2
    shift 2
    say "$what"
    if ! "$@" >>"$LOG" 2>&1 </dev/null; then
        printf '\nThe last lines of %s:\n' "$LOG" >&2
        tail -n 15 "$LOG" | sed 's/^/    /' >&2
        die "this failed: $what" "$next"
    fi
}

need_root() {
    [ "$(id -u)" -eq 0 ] || die "this needs root: it $1" "run it again with sudo: sudo $0 ${2:-}"
}

have() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

has_systemd() { [ -d /run/systemd/system ]; }

_apt_install() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y --no-install-recommends "$@" && return
    apt-get update && apt-get install -y --no-install-recommends "$@"
}

# install_packages PACKAGE...: does not touch apt when there is nothing to install.
install_packages() {
    [ $# -gt 0 ] || return 0
    have apt-get || die "these packages are missing: $*" \
        "there is no apt-get here: install what they contain with this system's own tools"
    step "installing from the distribution: $*" \
        "check the network and the sources of apt, then run: apt-get update && apt-get install $*" \
        _apt_install "$@"
}

# find_python: sets PYTHON to the distribution's Python 3.11 or newer, or to nothing. Never one
# from PATH: a user's own Python goes away with the user.
find_python() {
    local candidate
    PYTHON=${TEU_PYTHON:-}
    [ -z "$PYTHON" ] || return 0
    for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
        candidate=/usr/bin/$candidate
        if [ -x "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            PYTHON=$candidate
            return 0
        fi
    done
}

# need_python: sets PYTHON to one that can make virtual environments.
need_python() {
    find_python
    if [ -z "$PYTHON" ]; then
        if [ -x /usr/bin/python3 ]; then # too old, as on Ubuntu 22.04
            install_packages python3.11 python3.11-venv
        else
            install_packages python3 python3-venv
        fi
        find_python
    fi
    [ -n "$PYTHON" ] || die "there is no Python 3.11 or newer" \
        "install one, and name it: TEU_PYTHON=/path/to/python3 $0"
    if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        install_packages "$("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    fi
}

# mount_cgroup_trees: on a host with cgroup v1 that no service manager looks after, crun needs every
# controller in use (/proc/self/cgroup) mounted where it looks; mounts those that are not.
mount_cgroup_trees() {
    local name
    [ "$(stat -fc %T /sys/fs/cgroup 2>/dev/null)" = tmpfs ] || return 0
    ! has_systemd || return 0
    for name in $(cut -d: -f2 /proc/self/cgroup | tr ',' '\n' | grep -v -e '=' -e '^$' || true); do
        ! mountpoint -q "/sys/fs/cgroup/$name" || continue
        note "mounting the cgroup tree of $name for crun (again after a reboot)"
        mkdir -p "/sys/fs/cgroup/$name"
        mount -t cgroup -o "$name" cgroup "/sys/fs/cgroup/$name" ||
            note "that failed; if containers do not start, mount all cgroup v1 trees, or use v2"
    done
}
